"""A plan with its scales, as JSON in an artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from razordeploy.config.scheme import QScheme
from razordeploy.errors import UsageError
from razordeploy.quantization.plan import ObserverSpec, PlannedOp, QParams, QuantPlan, QuantPoint


def plan_record(plan: QuantPlan, params: Mapping[str, QParams]) -> dict[str, Any]:
    """What ``read_plan`` reads back: operations, points, and scale and zero point of each group."""
    groups = {g: {"scale": p.scale.tolist(), "zero_point": p.zero_point.tolist()} for g, p in params.items()}
    points = [{**asdict(p), "users": list(p.users), "observer": p.observer.config} for p in plan.points]
    ops = [asdict(o) for o in plan.ops]
    return {"backend": plan.backend, "bias": plan.bias, "ops": ops, "points": points, "groups": groups}


def read_plan(path: Path) -> tuple[QuantPlan, dict[str, QParams]]:
    """Read a plan and its scales.

    Raises:
        UsageError: not a plan that this version wrote.
    """
    try:
        return _read(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"cannot read the quantization plan {path}: {type(error).__name__}: {error}",
            hint="make the engine again with razordeploy ptq",
        ) from error


def _read(record: dict[str, Any]) -> tuple[QuantPlan, dict[str, QParams]]:
    points = tuple(_point(entry) for entry in record["points"])
    schemes = {p.group: p.scheme for p in points}
    params = {
        group: QParams(
            scale=torch.tensor(entry["scale"], dtype=torch.float32),
            zero_point=torch.tensor(entry["zero_point"], dtype=torch.int64),
            scheme=schemes[group],
        )
        for group, entry in record["groups"].items()
    }
    ops = tuple(PlannedOp(**entry) for entry in record["ops"])
    return QuantPlan(backend=record["backend"], points=points, ops=ops, bias=record["bias"]), params


def _point(entry: dict[str, Any]) -> QuantPoint:
    observer = dict(entry["observer"])
    return QuantPoint(
        **{k: v for k, v in entry.items() if k not in {"users", "scheme", "observer"}},
        users=tuple(entry["users"]),
        scheme=QScheme(**entry["scheme"]),
        observer=ObserverSpec(type=observer.pop("type"), options=tuple(sorted(observer.items()))),
    )
