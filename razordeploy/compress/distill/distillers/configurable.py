"""Recorders, deliveries, connectors and losses, wired by the recipe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from razordeploy.compress.algorithm.build import build, build_foreign, split_type
from razordeploy.compress.distill.connectors.base import BaseConnector
from razordeploy.compress.distill.connectors.table import CONNECTORS
from razordeploy.compress.distill.deliveries.manager import DistillDeliveryManager
from razordeploy.compress.distill.losses.table import LOSSES
from razordeploy.compress.distill.recorders.manager import RecorderManager
from razordeploy.errors import ModelError, RecipeError, nearest

Configs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Record:
    """Where one argument of a loss comes from."""

    recorder: str
    """Name among the recorders of its side."""
    from_student: bool
    record_idx: int = 0
    """Which call of the source."""
    data_idx: int | None = None
    """Item of a record that is a tuple; None: all of it."""
    connector: str | None = None
    """What the record goes through; None: nothing."""
    connector_idx: int | None = None
    """Item of what the connector returns; None: all of it."""


class ConfigurableDistiller(nn.Module):
    """Computes losses of what recorders kept of student and teacher.

    Args:
        student_recorders: name -> recorder, of the student.
        teacher_recorders: name -> recorder, of the teacher.
        distill_deliveries: name -> delivery, from the teacher to the student.
        connectors: name -> connector.
        distill_losses: name -> loss. Those whose name contains ``loss`` are minimised, the others only logged.
        loss_forward_mappings: loss -> argument -> ``dict(recorder=..., from_student=..., record_idx=0, data_idx=None,
            connector=None, connector_idx=None)``, or a list of those for an argument that takes several tensors.

    Raises:
        RecipeError: names that do not fit together, with the nearest that would.
    """

    def __init__(
        self,
        student_recorders: Configs | None = None,
        teacher_recorders: Configs | None = None,
        distill_deliveries: Configs | Sequence[Mapping[str, Any]] | None = None,
        connectors: Configs | None = None,
        distill_losses: Configs | None = None,
        loss_forward_mappings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.student_recorders = RecorderManager(student_recorders)
        self.teacher_recorders = RecorderManager(teacher_recorders)
        self.deliveries = DistillDeliveryManager(distill_deliveries)
        self.connectors = nn.ModuleDict({k: build(c, CONNECTORS, "connector") for k, c in (connectors or {}).items()})
        self.distill_losses = nn.ModuleDict({k: _build_loss(c) for k, c in (distill_losses or {}).items()})
        self.mappings = self._mappings(loss_forward_mappings or {})

    def prepare_from_student(self, model: nn.Module) -> None:
        """Find what is recorded of the student."""
        self.student_recorders.initialize(model)

    def prepare_from_teacher(self, model: nn.Module) -> None:
        """Find what is recorded of the teacher, or of a module that holds several."""
        self.teacher_recorders.initialize(model)

    def set_deliveries_override(self, override: bool) -> None:
        """False: the next forward pass fills the deliveries; True: it is given what they hold."""
        self.deliveries.override_data = override

    @property
    def needs_student(self) -> bool:
        """Whether any loss looks at the student."""
        every = [record for loss in self.mappings.values() for records in loss.values() for record in _flat(records)]
        return any(record.from_student for record in every)

    def get_record(
        self,
        recorder: str,
        from_student: bool,
        record_idx: int = 0,
        data_idx: int | None = None,
        connector: str | None = None,
        connector_idx: int | None = None,
    ) -> Any:
        """What one entry of ``loss_forward_mappings`` stands for.

        Raises:
            ModelError: nothing was recorded there.
        """
        record = Record(
            recorder=recorder,
            from_student=from_student,
            record_idx=record_idx,
            data_idx=data_idx,
            connector=connector,
            connector_idx=connector_idx,
        )
        return self._fetch(record, {})

    def compute_distill_losses(self) -> dict[str, Tensor]:
        """Every loss of what is recorded now, by its name.

        Losses are computed in single precision also under autocast; a connector that several losses share runs once.

        Raises:
            ModelError: something was not recorded, or shapes do not fit.
        """
        connected: dict[Record, Any] = {}
        losses: dict[str, Tensor] = {}
        for name, arguments in self.mappings.items():
            try:
                given = {key: self._resolve(records, connected) for key, records in arguments.items()}
                with torch.autocast(_device(given), enabled=False):
                    losses[name] = self.distill_losses[name](**{key: _single(x) for key, x in given.items()})
            except ModelError as error:
                raise ModelError(f"distill loss '{name}': {error}") from error
        return losses

    def init_weights(self) -> None:
        """Apply the connectors' ``init_cfg``; mmengine calls this before training."""
        for connector in self.connectors.values():
            cast(BaseConnector, connector).init_weights()

    def reset_data_buffer(self) -> None:
        """Let the recorders forget the step, and with it its graph."""
        self.student_recorders.reset_data_buffer()
        self.teacher_recorders.reset_data_buffer()

    def _resolve(self, records: Record | list[Record], connected: dict[Record, Any]) -> Any:
        if isinstance(records, list):
            return [self._fetch(record, connected) for record in records]
        return self._fetch(records, connected)

    def _fetch(self, record: Record, connected: dict[Record, Any]) -> Any:
        side = self.student_recorders if record.from_student else self.teacher_recorders
        data = side.get_recorder(record.recorder).get_record_data(record.record_idx, record.data_idx)
        if record.connector is None:
            return data
        key = Record(**{**vars(record), "connector_idx": None})
        if key not in connected:
            connected[key] = self.connectors[record.connector](data)
        out = connected[key]
        return out if record.connector_idx is None else out[record.connector_idx]

    def _mappings(self, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Record | list[Record]]]:
        known = list(self.distill_losses)
        for name in given:
            if name not in known:
                raise RecipeError(
                    f"loss_forward_mappings: no distill loss '{name}'",
                    hint=nearest(name, known) if known else "distill_losses is empty",
                )
        for name in known:
            if name not in given:
                raise RecipeError(
                    f"distill loss '{name}' is never computed",
                    hint=f"loss_forward_mappings=dict({name}=dict(...)) says what it is given",
                )
        return {name: self._arguments(name, arguments) for name, arguments in given.items()}

    def _arguments(self, name: str, given: Mapping[str, Any]) -> dict[str, Record | list[Record]]:
        where = f"loss_forward_mappings.{name}"
        if not isinstance(given, Mapping):
            raise RecipeError(f"{where}: expected a dict of argument -> record, got {type(given).__name__}")
        loss = self.distill_losses[name]
        parameters = inspect.signature(loss.forward).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for key in given:
            if key not in parameters and not open_ended:
                raise RecipeError(f"{where}: {type(loss).__name__} takes no '{key}'", hint=nearest(key, parameters))
        for key, parameter in parameters.items():
            wanted = parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            if wanted and key not in given:
                raise RecipeError(f"{where}: {type(loss).__name__} needs '{key}'")
        return {key: self._record(value, f"{where}.{key}") for key, value in given.items()}

    def _record(self, value: Any, where: str) -> Record | list[Record]:
        if isinstance(value, list | tuple):
            return [self._one_record(item, where) for item in value]
        return self._one_record(value, where)

    def _one_record(self, value: Any, where: str) -> Record:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where}: expected dict(recorder=..., from_student=...), got {value!r}")
        fields = Record.__dataclass_fields__
        for key in value:
            if key not in fields:
                raise RecipeError(f"{where}: unknown key '{key}'", hint=nearest(str(key), fields))
        for key in ("recorder", "from_student"):
            if key not in value:
                raise RecipeError(f"{where}: expected '{key}'", hint="dict(recorder='fc', from_student=True)")
        if not isinstance(value["from_student"], bool):
            raise RecipeError(f"{where}: expected from_student as True or False, got {value['from_student']!r}")
        record = Record(**value)
        side = "student_recorders" if record.from_student else "teacher_recorders"
        for noun, key, table in (
            (side, record.recorder, getattr(self, side).recorders),
            ("connectors", record.connector, self.connectors),
        ):
            if key is not None and key not in table:
                hint = nearest(str(key), table) if len(table) else f"{noun} is empty"
                raise RecipeError(f"{where}: no '{key}' in {noun}", hint=hint)
        return record


def _build_loss(config: Mapping[str, Any]) -> nn.Module:
    name, keywords = split_type(config, "loss")
    found = build_foreign(name, keywords, "loss") if "." in name else build(config, LOSSES, "loss")
    if not isinstance(found, nn.Module):
        raise RecipeError(f"loss '{name}': expected a module, got {type(found).__name__}")
    return found


def _flat(records: Record | list[Record]) -> list[Record]:
    return records if isinstance(records, list) else [records]


def _single(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, list | tuple) and all(isinstance(item, Tensor) for item in value):
        return type(value)(_single(item) for item in value)
    return value


def _device(given: Mapping[str, Any]) -> str:
    for value in given.values():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, Tensor):
                return item.device.type
    return "cpu"
