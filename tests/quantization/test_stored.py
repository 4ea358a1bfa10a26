"""A plan survives JSON."""

from __future__ import annotations

import json

import pytest
import torch

from razordeploy.config.scheme import QScheme
from razordeploy.errors import UsageError
from razordeploy.quantization.plan import ObserverSpec, PlannedOp, QParams, QuantPlan, QuantPoint
from razordeploy.quantization.stored import plan_record, read_plan
from razordeploy.strict_json import json_text

ACTIVATION, WEIGHT = QScheme(), QScheme(signed=True, symmetric=True, symmetric_range=True, ch_axis=0)
PLAN = QuantPlan(
    backend="test",
    bias="int32",
    points=(
        QuantPoint(
            node="x", users=("conv", "add"), kind="activation", scheme=ACTIVATION, group="x", observed=False,
            observer=ObserverSpec(type="PercentileObserver", options=(("bins", 64), ("percentile", 99.9))),
        ),
        QuantPoint(
            node="w",
            users=("conv",),
            kind="weight",
            scheme=WEIGHT,
            group="w",
            observer=ObserverSpec(type="MinMaxObserver"),
        ),
    ),
    ops=(
        PlannedOp(node="conv", kind="conv2d", module="a.b", int8=True),
        PlannedOp(node="add", kind="add", module="", int8=False, reason="its inputs differ"),
    ),
)  # fmt: skip
PARAMS = {
    "x": QParams(scale=torch.tensor(0.1), zero_point=torch.tensor(3), scheme=ACTIVATION),
    "w": QParams(scale=torch.tensor([1 / 3, 1e-12]), zero_point=torch.tensor([0, 0]), scheme=WEIGHT),
}


def test_round_trip(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json_text(plan_record(PLAN, PARAMS)))
    plan, params = read_plan(path)
    assert plan == PLAN
    for name, expected in PARAMS.items():
        assert torch.equal(params[name].scale, expected.scale)  # to the bit, through decimal text
        assert torch.equal(params[name].zero_point, expected.zero_point)
        assert params[name].scale.dtype == torch.float32
        assert params[name].zero_point.dtype == torch.int64
        assert params[name].scheme == expected.scheme


@pytest.mark.parametrize("damage", ["text", "list", "key", "field", "missing"])
def test_damage(tmp_path, damage):
    path, record = tmp_path / "plan.json", plan_record(PLAN, PARAMS)
    if damage == "key":
        del record["points"]
    if damage == "field":
        record["ops"][0]["colour"] = "red"
    texts = {"text": "{", "list": "[]", "key": json_text(record), "field": json_text(record)}
    if damage in texts:
        path.write_text(texts[damage])
    with pytest.raises(UsageError, match=r"cannot read the quantization plan .*plan\.json: .*; make the engine again"):
        read_plan(path)


def test_record_is_strict_json():
    json.loads(json_text(plan_record(PLAN, PARAMS)), parse_constant=pytest.fail)
