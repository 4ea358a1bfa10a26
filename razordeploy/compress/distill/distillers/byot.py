"""Self-distillation: the deepest exit teaches the others."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from razordeploy.compress.distill.distillers.configurable import ConfigurableDistiller, Record


class BYOTDistiller(ConfigurableDistiller):
    """A ``ConfigurableDistiller`` whose teacher records come from the student itself, without their gradient.

    Be Your Own Teacher (Zhang et al. 2019, arXiv 1905.08094).
    """

    def _fetch(self, record: Record, connected: dict[Record, Any]) -> Any:
        data = super()._fetch(record, connected)
        return data if record.from_student else _detached(data)


def _detached(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.detach()
    if isinstance(data, list | tuple):
        return type(data)(_detached(item) for item in data)
    return data
