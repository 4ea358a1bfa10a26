"""Recorders of modules and parameters, by their name in the model."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from razordeploy.compress.distill.recorders.base import BaseRecorder, arguments
from razordeploy.errors import ModelError, nearest


class _ModelRecorder(BaseRecorder):
    """Keeps the model and finds the source in it by name each time: modules may be replaced after construction."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self._model: nn.Module | None = None

    def _checked(self, model: nn.Module | None) -> nn.Module:
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"{type(self).__name__} '{self.source}': expected the model to record, got {type(model).__name__}",
                hint="call initialize(model)",
            )
        return model


class ModuleOutputsRecorder(_ModelRecorder):
    """Keeps what a module returns.

    Args:
        source: name of the module, as ``model.named_modules()`` has it; ``''`` is the model itself.
    """

    noun = "module"

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self._handle: RemovableHandle | None = None

    def prepare_from_model(self, model: nn.Module | None) -> None:
        """Check that ``model`` has the module.

        Raises:
            ModelError: it has not; names the nearest.
        """
        model = self._checked(model)
        names = dict(model.named_modules())
        if self.source not in names:
            raise ModelError(
                f"{type(self).__name__}: no module '{self.source}' in {type(model).__name__}",
                hint=_nearest_name(self.source, names),
            )
        self._model = model

    def start(self) -> None:
        """Hook the module."""
        assert self._model is not None
        self._handle = self._hook(self._model.get_submodule(self.source))

    def stop(self) -> None:
        """Take the hook off."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _hook(self, module: nn.Module) -> RemovableHandle:
        return module.register_forward_hook(self._keep_outputs)

    def _keep_outputs(self, module: nn.Module, args: Any, outputs: Any) -> None:
        self.keep(outputs)


class ModuleInputsRecorder(ModuleOutputsRecorder):
    """Keeps what a module is called with: a tuple in the order of ``forward``'s parameters, defaults filled in.

    Args:
        source: as for ``ModuleOutputsRecorder``.
    """

    def _hook(self, module: nn.Module) -> RemovableHandle:
        return module.register_forward_pre_hook(self._keep_inputs, with_kwargs=True)

    def _keep_inputs(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.keep(arguments(module.forward, args, kwargs))


class ParameterRecorder(_ModelRecorder):
    """Gives a parameter of the model, from ``initialize`` on.

    Args:
        source: name of the parameter, as ``model.named_parameters()`` has it.
    """

    noun = "parameter"

    def prepare_from_model(self, model: nn.Module | None) -> None:
        """Check that ``model`` has the parameter.

        Raises:
            ModelError: it has not; names the nearest.
        """
        model = self._checked(model)
        names = dict(model.named_parameters())
        if self.source not in names:
            raise ModelError(
                f"{type(self).__name__}: no parameter '{self.source}' in {type(model).__name__}",
                hint=_nearest_name(self.source, names),
            )
        self._model = model
        self.reset_data_buffer()

    def reset_data_buffer(self) -> None:
        """Look the parameter up again: its one record is never lost."""
        super().reset_data_buffer()
        if self._model is not None:
            self.keep(self._model.get_parameter(self.source))

    def start(self) -> None:
        """Nothing to do: a parameter is there all the time."""

    def stop(self) -> None:
        """Nothing to undo."""


def _nearest_name(source: str, names: dict[str, Any]) -> str:
    known = [name for name in names if name]
    close = nearest(source, known)
    if close.startswith("did you mean"):
        return close
    # A list of all modules is no help: show what continues the longest part that is right.
    parts = source.split(".")
    for depth in range(len(parts), -1, -1):
        prefix = ".".join([*parts[:depth], ""]) if depth else ""
        inside = sorted({name[len(prefix) :].partition(".")[0] for name in known if name.startswith(prefix)})
        if inside:
            return f"'{prefix.rstrip('.') or 'the model'}' has {', '.join(inside[:12])}{', ...' * (len(inside) > 12)}"
    return "the model has none"
