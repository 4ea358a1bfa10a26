"""``torch.export`` a model once, with a dynamic batch where its code allows one."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from razordeploy.capture.branches import coarse_layers
from razordeploy.capture.deploy_form import deploy_form
from razordeploy.capture.fast_shapes import fast_shapes
from razordeploy.capture.graph import CapturedModel
from razordeploy.capture.normalize import normalize
from razordeploy.errors import ModelError

_NOISY = (
    "torch.export",
    "torch._export",
    "torch._dynamo",
    "torch.fx.experimental.symbolic_shapes",
    "torch._subclasses",
)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's own export logs off the user's screen; failures are reported by us."""
    before = {name: logging.getLogger(name).level for name in _NOISY}
    try:
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # torch prints the half-made graph of a failed capture.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model as torch.export gives it, before any of our passes."""

    program: torch.export.ExportedProgram
    """In eval mode; ``example_inputs`` are those of the export, of batch two at least where it is dynamic."""
    dynamic_batch: bool
    """False where the program has the example's batch size baked in."""
    notes: tuple[str, ...] = ()
    """Lines for the user."""


def capture(
    model: torch.nn.Module,
    example_inputs: tuple[Any, ...],
    example_kwargs: dict[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
    keep_norms: bool = False,
) -> CapturedModel:
    """Capture ``model`` in eval mode as a normalised ATen graph.

    The model itself is left as it was. Branches that it has for training only are merged. Axis 0 of every tensor input
    that shares the first input's batch size becomes dynamic when the code allows it; otherwise the graph is captured
    for the batch size given. ``keep_norms``: see :func:`razordeploy.capture.normalize.normalize`; training needs it,
    and the branches stay.

    Raises:
        ModelError: torch.export cannot capture the model; says which operation and which source line.
    """
    captured, exported = _captured(model, example_inputs, example_kwargs, dynamic_batch, keep_norms)
    if keep_norms:
        return captured
    args, kwargs = exported.program.example_inputs
    switched = deploy_form(model, args, kwargs, captured.graph_module)
    if switched is None:
        return captured
    notes = switched.notes
    if switched.module is not None:
        twin, _ = _captured(switched.module, example_inputs, example_kwargs, dynamic_batch, keep_norms)
        if coarse_layers(twin.graph_module) > coarse_layers(captured.graph_module):
            notes = (*notes, "switch_to_deploy() makes weights that 8 bits round coarsely: it is not used")
        else:
            captured = twin
    return replace(captured, warnings=(*notes, *captured.warnings))


def _captured(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None, dynamic_batch: bool, keep_norms: bool
) -> tuple[CapturedModel, Exported]:
    exported = export_program(model, args, kwargs, dynamic_batch=dynamic_batch)
    tensors = [x for x in pytree.tree_leaves(exported.program.example_inputs) if isinstance(x, torch.Tensor)]
    captured = CapturedModel(
        graph_module=normalize(exported.program, keep_norms=keep_norms),
        example_inputs=tuple(tensors),
        dynamic_batch=exported.dynamic_batch,
        warnings=exported.notes,
    )
    return captured, exported


def export_program(
    model: torch.nn.Module,
    example_inputs: tuple[Any, ...],
    example_kwargs: dict[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
) -> Exported:
    """Export ``model`` in eval mode, with the conditions and errors of :func:`capture`, without normalising it."""
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"expected an nn.Module, got {type(model).__name__}")
    example_kwargs = dict(example_kwargs or {})
    # Per module: a frozen batch norm in a model that trains stays frozen.
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    notes: list[str] = []
    try:
        _check_runs(model, example_inputs, example_kwargs)
        program, is_dynamic = None, False
        if dynamic_batch:
            program = _try_dynamic(model, example_inputs, example_kwargs)
            is_dynamic = program is not None
            if not is_dynamic:
                notes.append("the model's code fixes its batch size: captured for the batch size of the example")
        if program is None:
            program = _export(model, example_inputs, example_kwargs, None)
    finally:
        for module, was_training in training:
            module.training = was_training
    return Exported(program=program, dynamic_batch=is_dynamic, notes=tuple(notes))


def _check_runs(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run the model once, so that an ordinary mistake is told apart from a capture failure."""
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the model's own; a user who made them errors did not mean this run
            model(*args, **kwargs)
    except Exception as error:
        shapes = [tuple(x.shape) for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        raise ModelError(
            f"{type(model).__name__} does not run on the example inputs of shape {shapes}: {_first_line(error)}",
            hint="check deploy.input_shapes in the recipe, or example_inputs",
        ) from error


def _batch_of_two(tree: Any, batch: int) -> Any:
    """Repeat inputs of batch 1, because torch.export bakes sizes 0 and 1 into the graph."""
    if batch != 1:
        return tree
    return pytree.tree_map_only(torch.Tensor, lambda x: torch.cat([x, x]) if x.dim() and x.shape[0] == 1 else x, tree)


def _try_dynamic(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.export.ExportedProgram | None:
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()]
    if not tensors:
        return None
    batch = tensors[0].shape[0]
    args, kwargs = _batch_of_two((args, kwargs), batch)
    size = max(batch, 2)
    dim = torch.export.Dim("batch", min=1)

    def spec(leaf: Any) -> Any:
        return {0: dim} if isinstance(leaf, torch.Tensor) and leaf.dim() and leaf.shape[0] == size else None

    arg_shapes, kwarg_shapes = pytree.tree_map(spec, (args, kwargs))
    shapes = _by_argument(model, arg_shapes, kwarg_shapes)
    try:
        return _export(model, args, kwargs, shapes)
    except ModelError:
        return None


def _by_argument(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Name every argument as the model's signature does; those that ``*args`` takes are one."""
    named: dict[str, Any] = {}
    left = list(args)
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            named[parameter.name], left = tuple(left), []
        elif left:
            named[parameter.name] = left.pop(0)
    return {**named, **kwargs}


def _export(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> torch.export.ExportedProgram:
    try:
        with _quiet(), torch.no_grad(), fast_shapes():
            return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        where = _user_frame(error)
        raise ModelError(
            f"torch.export cannot capture {type(model).__name__}: {_first_line(error)}"
            + (f" at {where}" if where else ""),
            hint="make that line independent of tensor values (torch.where, torch.cond or a fixed number)",
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _user_frame(error: BaseException) -> str:
    """``file:line`` of the innermost frame that is the user's own code."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, str(trace.tb_lineno)))
        trace = trace.tb_next
    ours = [f for f in frames if "/torch/" not in f[0] and "/razordeploy/" not in f[0] and not f[0].startswith("<")]
    return ":".join(ours[-1]) if ours else ""
