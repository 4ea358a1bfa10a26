"""Several recorders as one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from torch import nn

from razordeploy.compress.algorithm.build import construct, split_type
from razordeploy.compress.distill.recorders.base import BaseRecorder
from razordeploy.compress.distill.recorders.table import RECORDERS
from razordeploy.errors import RecipeError, nearest


class RecorderManager:
    """Recorders by name; one ``with`` block starts and stops them all.

    Args:
        recorders: name -> ``dict(type='ModuleOutputs', source='backbone.layer1')``; types with or without the suffix
            ``Recorder``.

    Raises:
        RecipeError: an unknown type or keyword, or a path that leads nowhere.
    """

    def __init__(self, recorders: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.recorders: dict[str, BaseRecorder] = {name: _build(c) for name, c in (recorders or {}).items()}
        self._stack: contextlib.ExitStack | None = None

    def initialize(self, model: nn.Module | None = None) -> None:
        """Find the sources of all recorders in ``model``."""
        for recorder in self.recorders.values():
            recorder.initialize(model)

    def get_recorder(self, recorder: str) -> BaseRecorder:
        """The recorder of that name.

        Raises:
            RecipeError: there is none; names the nearest.
        """
        if recorder not in self.recorders:
            hint = nearest(recorder, self.recorders) if self.recorders else "there are none"
            raise RecipeError(f"no recorder '{recorder}'", hint=hint)
        return self.recorders[recorder]

    def reset_data_buffer(self) -> None:
        """Let all recorders forget: what they keep holds on to the graph of a whole step."""
        for recorder in self.recorders.values():
            recorder.reset_data_buffer()

    def detach(self) -> None:
        """Let what is recorded hold on to no graph: another backward pass may use it."""
        for recorder in self.recorders.values():
            recorder.detach()

    def __enter__(self) -> RecorderManager:
        with contextlib.ExitStack() as stack:
            for recorder in self.recorders.values():
                stack.enter_context(recorder)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()


def _build(config: Mapping[str, Any]) -> BaseRecorder:
    name, keywords = split_type(config, "recorder")
    full = name if name.endswith("Recorder") else f"{name}Recorder"
    if full not in RECORDERS:
        short = [known.removesuffix("Recorder") for known in RECORDERS]
        raise RecipeError(f"unknown recorder '{name}'", hint=nearest(name.removesuffix("Recorder"), short))
    recorder: BaseRecorder = construct(RECORDERS[full], keywords, "recorder")
    return recorder
