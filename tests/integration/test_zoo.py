"""A fast part of the zoo of tools/bench/zoo.py: bare modules of mmcls to working int8 engines on both runtimes."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest

import razordeploy as rd
from razordeploy.lazy import available

_BENCH = Path(__file__).parents[2] / "tools" / "bench" / "zoo.py"
_FAMILIES = ("lenet", "mobilenet_v3", "repvgg", "convnext_v2", "edgenext", "deit")
"""Plain, gated and re-parametrised convolutions; channels-last linear layers; both kinds in one; attention."""
_LAYERS = ("conv", "depthwise", "linear")

pytestmark = pytest.mark.skipif(not available("mmcls"), reason="mmcls is not installed")


@pytest.fixture(scope="module")
def zoo():
    found = importlib.util.spec_from_file_location("zoo", _BENCH)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("family", _FAMILIES)
def test_family_runs_in_int8_on_both_engines(zoo, family, tmp_path):
    pytest.importorskip("openvino", reason="needs openvino")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    model, images = zoo.build(family)
    made = rd.ptq(
        model,
        list(images[:8].split(4)),
        example_inputs=(images[:2],),
        backend=("openvino", "onnxruntime"),
        out_dir=tmp_path,
    )
    expected = zoo.flat(model(images[:4]).detach())
    for name, artifact in made.items():
        engine = rd.load_engine(artifact)
        found = zoo.flat(engine(images[:4].numpy()))
        assert np.isfinite(found).all()
        assert zoo.cosine(found, expected, name) > 0.99
        coverage = engine.coverage()
        assert coverage.planned == coverage.int8 > 0, [f for f in coverage.float_ops if "planned as" in f.reason]
        assert not [f for f in coverage.float_ops if f.op.startswith(_LAYERS)]
        assert engine.inputs[0].shape[0] is None, "the batch is fixed"


def test_layers_of_fixed_windows_run_in_int8(zoo, tmp_path):
    """Swin fixes its batch; with all sizes known, engines rewrite products in ways of their own."""
    pytest.importorskip("openvino", reason="needs openvino")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv-lite says what it lacks
        from mmcls.models import SwinTransformer

    torch.manual_seed(0)
    arch = {"embed_dims": 48, "depths": [1, 2], "num_heads": [2, 4]}
    model = SwinTransformer(arch, img_size=56, out_indices=(1,))
    model.eval()  # its train() returns nothing
    x = torch.randn(2, 3, 56, 56)
    made = rd.ptq(model, [x], example_inputs=(x,), backend=("openvino", "onnxruntime"), out_dir=tmp_path)
    expected = zoo.flat(model(x)[-1].detach())
    for name, artifact in made.items():
        engine = rd.load_engine(artifact)
        coverage = engine.coverage()
        assert coverage.planned == coverage.int8 >= 13, coverage.float_ops
        assert zoo.cosine(zoo.flat(engine(x.numpy())), expected, name) > 0.99
