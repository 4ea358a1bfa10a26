"""The analysis of a job without labels: outputs are compared, no metric is."""

from __future__ import annotations

import torch
from torch import nn

from razordeploy.analysis import run_analysis
from razordeploy.data.batch import Batch
from razordeploy.job import PTQJob


def test_without_labels_outputs_alone_are_compared(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(64, 6)
    job = PTQJob(
        model=nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        example_inputs=(x[:2],),
        calibration=lambda: iter([Batch((part,), None) for part in x.split(16)]),
        backends=["academic", "openvino"],
        work_dir=tmp_path,
    )
    found, errors = run_analysis(job, samples=40)
    assert not errors and set(found) == {"academic", "openvino"}
    for analysis in found.values():
        assert analysis.metric is None and analysis.float_metric is None and analysis.samples == 40
        assert analysis.whole.drop is None and analysis.whole.sqnr_db > 20
        assert [s.module for s in analysis.layers] == ["0", "2"]
        assert all(s.isolated.drop is None and s.isolated.sqnr_db > 20 for s in analysis.layers)
    assert not (tmp_path / "cache").exists()
