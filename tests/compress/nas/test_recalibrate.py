from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from razordeploy.compress.nas.recalibrate import calibrated_subnet, recalibrate
from razordeploy.compress.nas.supernets.digits import bignas_digits
from razordeploy.errors import DataError, ModelError
from razordeploy.subnet.files import write_mapping
from razordeploy.subnet.mutators.nas import NasMutator
from tests.subnet.nets import randomise


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3)
        self.bn1 = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.9)
        self.unused = nn.BatchNorm2d(3)
        self.out = nn.Linear(3, 4)
        self.bn2 = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.bn2(self.out(self.dropout(self.bn1(self.first(x)).relu().mean((2, 3)))))


def _batches():
    """Batches of different means and sizes: averaging their variances would lose what is between them."""
    torch.manual_seed(0)
    return [torch.randn(size, 2, 6, 6) * scale + shift for size, scale, shift in ((4, 1, 0), (6, 3, 5), (2, 0.5, -4))]


def test_statistics_are_those_of_the_whole_calibration_set():
    model = randomise(Normed()).train()
    batches = _batches()
    seen = {}
    norms = {"bn1": model.bn1, "bn2": model.bn2}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0]))
    unused = model.unused.running_mean.clone()
    count = model.bn1.num_batches_tracked.clone()
    assert recalibrate(model, batches) == 12
    for name, norm in norms.items():
        values = torch.cat([x.transpose(0, 1).flatten(1) for x in seen[name]], 1).double()
        torch.testing.assert_close(norm.running_mean.double(), values.mean(1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), values.var(1, correction=0), atol=1e-5, rtol=1e-5)
        per_batch = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen[name]]).mean(0)
        assert not torch.allclose(norm.running_var, per_batch, rtol=0.1), "the batches do not differ"
    assert torch.equal(model.unused.running_mean, unused)
    assert torch.equal(model.bn1.num_batches_tracked, count)
    assert model.training and model.dropout.training
    # The first norm's input does not depend on any statistics: it is exact for the deployed model.
    expected = torch.cat([model.first(x) for x in batches]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model.bn1.running_mean, expected.mean(1), atol=1e-5, rtol=1e-5)


def test_a_limit_and_bad_data():
    model = Normed()
    assert recalibrate(model, _batches(), num_samples=5) == 10
    assert recalibrate(model, [(x,) for x in _batches()], num_samples=1) == 4
    with pytest.raises(DataError, match="got no batch"):
        recalibrate(model, [])
    with pytest.raises(ModelError, match="'bn1' saw values that are not finite"):
        recalibrate(model, [torch.full((2, 2, 6, 6), float("nan"))])


SCRIPT = """
import json, sys, torch
from razordeploy.compress.nas.supernets.digits import bignas_digits
from razordeploy.subnet.fix import load_fix_subnet
torch.set_num_threads(int(sys.argv[4]))
model = load_fix_subnet(bignas_digits(), sys.argv[1])
model.load_state_dict(torch.load(sys.argv[2]), strict=True)
print(json.dumps(model.eval()(torch.load(sys.argv[3])).tolist()))
"""


def test_an_exported_subnet_is_in_a_new_process_what_was_measured(tmp_path):
    torch.manual_seed(0)
    model = randomise(bignas_digits())
    mutator = NasMutator()
    mutator.prepare_from_supernet(model)
    mutator.set_choices(mutator.sample_choices())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(8, 1, 8, 8)
    subnet, static = calibrated_subnet(model, [x[:5], x[5:]])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not torch.allclose(static(x), model(x))
    measured = static(x)
    # Another candidate in between leaves no trace.
    mutator.set_choices(mutator.sample_choices())
    calibrated_subnet(model, [x])
    files = [tmp_path / name for name in ("subnet.yaml", "subnet.pth", "x.pth")]
    write_mapping(files[0], subnet)
    torch.save(static.state_dict(), files[1])
    torch.save(x, files[2])
    # Sums of several threads are rounded in another order.
    words = [*files, str(torch.get_num_threads())]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == measured.tolist()
