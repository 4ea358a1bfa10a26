"""A plan's grids in a few records."""

from __future__ import annotations

from razordeploy.config.scheme import QScheme
from razordeploy.quantization.describe import scheme_records
from razordeploy.quantization.plan import ObserverSpec, QuantPlan, QuantPoint

ACTIVATION = QScheme()
WEIGHT = QScheme(signed=True, symmetric=True, ch_axis=0)


def point(node, kind, scheme, observer="MinMaxObserver"):
    return QuantPoint(node=node, users=(), kind=kind, scheme=scheme, group=node, observer=ObserverSpec(type=observer))


def test_grids_of_one_kind_are_counted_together():
    points = [point(f"a{i}", "activation", ACTIVATION) for i in range(3)]
    points += [point("w0", "weight", WEIGHT, "MSEObserver"), point("w1", "weight", WEIGHT, "MSEObserver")]
    points += [point("w2", "weight", QScheme(bits=4, signed=True, symmetric=True))]
    found = scheme_records(QuantPlan(backend="b", points=tuple(points), ops=()))
    assert [(r["tensors"], r["role"], r["dtype"], r["symmetric"], r["per_channel"], r["observer"]) for r in found] == [
        (3, "activation", "uint8", False, False, "MinMaxObserver"),
        (2, "weight", "int8", True, True, "MSEObserver"),
        (1, "weight", "int4", True, False, "MinMaxObserver"),
    ]


def test_an_empty_plan():
    assert scheme_records(QuantPlan(backend="b", points=(), ops=())) == []
