"""Code that runs an engine with its runtime alone, for those who have no razordeploy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from razordeploy.artifact import TensorSpec
from razordeploy.config.backend_spec import BackendSpec


def usage_text(
    spec: BackendSpec, folder: Path, files: Mapping[str, str], inputs: Sequence[TensorSpec], batch: int
) -> str:
    """Fill the backend's ``usage`` with the engine's path and with zeros of the model's input shapes.

    Args:
        spec: its ``usage`` may say ``{engine}``, ``{arrays}`` (a list), ``{feed}`` (a dict by input name) and
            ``{tensors}`` (torch tensors, separated by commas).
        folder: where the engine's files lie.
        files: role to file name.
        inputs: in call order; a dynamic axis gets ``batch`` elements.
        batch: samples of the example.

    Returns:
        Python code; empty where the backend has no usage to tell.
    """
    arrays = [f"np.zeros({_shape(i, batch)}, {i.dtype!r})" for i in inputs]
    parts = {
        "{engine}": repr((folder / files.get("engine", "")).as_posix()),
        "{arrays}": f"[{', '.join(arrays)}]",
        "{feed}": "{" + ", ".join(f"{i.name!r}: {array}" for i, array in zip(inputs, arrays, strict=True)) + "}",
        "{tensors}": ", ".join(f"torch.zeros({_shape(i, batch)}, dtype=torch.{i.dtype})" for i in inputs),
    }
    text = spec.usage
    for key, value in parts.items():
        text = text.replace(key, value)
    return text.rstrip()


def _shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    return tuple(batch if size is None else size for size in spec.shape)
