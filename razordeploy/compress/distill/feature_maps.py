"""What the layers of a model see in an image, and how that of two models differs, as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.recorders.manager import RecorderManager
from razordeploy.errors import ModelError, RecipeError, UsageError, nearest

REDUCTIONS = ("squeeze_mean", "select_max", "pixel_wise_max")
_FIELDS = ("recorder", "record_idx", "data_idx")


@dataclass(frozen=True, kw_only=True)
class MapStyle:
    """How a feature (C, H, W) becomes one picture."""

    channel_reduction: str | None = "squeeze_mean"
    """``squeeze_mean``: mean over channels; ``select_max``: the channel with the largest sum; ``pixel_wise_max``: the
    largest value of each pixel; None: ``topk`` channels side by side."""
    topk: int = 20
    """Channels with the largest sums, without a reduction; -1 shows the first three as they are."""
    arrangement: tuple[int, int] = (4, 5)
    """Rows and columns of those."""
    resize_shape: tuple[int, int] | None = None
    """(height, width) of each map; None: the input's."""
    use_norm: bool = False
    """Subtract each channel's mean and divide by its standard deviation first."""
    overlaid: bool = False
    """Draw over the image."""
    alpha: float = 0.5
    """Share of the image in an overlay."""

    def __post_init__(self) -> None:
        if self.channel_reduction is not None and self.channel_reduction not in REDUCTIONS:
            raise UsageError(
                f"unknown channel reduction '{self.channel_reduction}'",
                hint=nearest(self.channel_reduction, REDUCTIONS),
            )
        if self.channel_reduction is None and self.topk > self.arrangement[0] * self.arrangement[1]:
            raise UsageError(
                f"{self.topk} channels do not fit into {self.arrangement[0]} x {self.arrangement[1]} places"
            )
        if not 0.0 <= self.alpha <= 1.0:
            raise UsageError(f"expected alpha from 0 to 1, got {self.alpha}")


def record_features(
    module: nn.Module,
    inputs: Tensor,
    recorders: Mapping[str, Any],
    mappings: Mapping[str, Mapping[str, Any]],
    call: Callable[[Tensor], Any] | None = None,
) -> dict[str, Tensor]:
    """Features of the first image, by name.

    Args:
        module: whose layers are recorded; set to eval mode.
        inputs: (N, C, H, W).
        recorders: name -> recorder, as in a distiller.
        mappings: name of the picture -> ``dict(recorder=..., record_idx=0, data_idx=None)``.
        call: runs ``module``; None: the module itself.

    Returns:
        Name -> (C, H, W).

    Raises:
        RecipeError: a mapping names no recorder, or a recorder no module.
        ModelError: what is recorded is not a batch of feature maps.
    """
    manager = RecorderManager(recorders)
    manager.initialize(module)
    for name, mapping in mappings.items():
        for key in mapping:
            if key not in _FIELDS:
                raise RecipeError(f"mappings.{name}: unknown key '{key}'", hint=nearest(str(key), _FIELDS))
        if mapping.get("recorder") not in recorders:
            raise RecipeError(
                f"mappings.{name}: no recorder '{mapping.get('recorder')}'",
                hint=nearest(str(mapping.get("recorder")), recorders),
            )
    module.eval()
    with torch.no_grad(), manager:
        (call or module)(inputs)
    found = {}
    for name, mapping in mappings.items():
        recorder = manager.get_recorder(mapping["recorder"])
        value = recorder.get_record_data(mapping.get("record_idx", 0), mapping.get("data_idx"))
        if not isinstance(value, Tensor) or value.ndim != 4:
            kind = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"'{name}': expected a feature (N, C, H, W), got {kind}",
                hint="record a layer that gives maps, or name the item with data_idx",
            )
        found[name] = value[0].detach().float()
    manager.reset_data_buffer()
    return found


def reduced(feature: Tensor, style: MapStyle) -> Tensor:
    """(C, H, W) -> maps (K, H, W): one, or the ``topk`` of the style."""
    if style.use_norm:
        feature = (feature - feature.mean((1, 2), keepdim=True)) / (feature.std((1, 2), keepdim=True) + 1e-6)
    if style.channel_reduction == "squeeze_mean":
        return feature.mean(0, keepdim=True)
    if style.channel_reduction == "pixel_wise_max":
        return feature.amax(0, keepdim=True)
    sums = feature.sum((1, 2))
    if style.channel_reduction == "select_max":
        return feature[sums.argmax()][None]
    if style.topk == -1:
        return feature[:3]
    return feature[sums.topk(min(style.topk, len(feature))).indices]


def unit(maps: Tensor) -> Tensor:
    """Each map scaled to 0..1; a constant one is 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp(min=1e-12), torch.zeros_like(maps))


def difference(first: Tensor, second: Tensor, style: MapStyle) -> Tensor:
    """|first - second| of the reduced maps, each scaled to 0..1 before: (1, H, W) of the larger size.

    Scaling comes first, so that a student of other channels and another range can be held against its teacher.
    """
    pair = [unit(reduced(feature, style).mean(0, keepdim=True)) for feature in (first, second)]
    size = [max(m.shape[axis] for m in pair) for axis in (1, 2)]
    a, b = (functional.interpolate(m[None], size, mode="bilinear", align_corners=False)[0] for m in pair)
    return (a - b).abs()


def draw_features(image: Tensor, columns: Mapping[str, Mapping[str, Tensor]], style: MapStyle, file: Path) -> Path:
    """Write a sheet: one row per feature, the image at the left, one column per model and one for the difference.

    Args:
        image: input (C, H, W) in any range.
        columns: title -> features by name, as ``record_features`` gives; two columns get a third, their difference.
        style: of the maps.
        file: PNG, written whole or not at all.
    """
    from matplotlib.figure import Figure

    from razordeploy.storage import atomic_write

    names = list(next(iter(columns.values())))
    titles = [*columns, *(["difference"] if len(columns) == 2 else [])]
    figure = Figure(figsize=(2.6 * (1 + len(titles)), 2.7 * len(names)), dpi=110, layout="constrained")
    axes = np.asarray(figure.subplots(len(names), 1 + len(titles), squeeze=False))
    background = _picture(image)
    for row, name in enumerate(names):
        _show(axes[row, 0], background, f"input {tuple(image.shape)}")
        features = [features[name] for features in columns.values()]
        sheets = [_tiled(unit(reduced(f, style)), style, tuple(background.shape[:2])) for f in features]
        if len(features) == 2:
            sheets.append(_tiled(difference(features[0], features[1], style), style, tuple(background.shape[:2])))
        for column, sheet in enumerate(sheets, 1):
            shape = f" {tuple(features[column - 1].shape)}" if column <= len(features) else f", mean {sheet.mean():.3f}"
            _show(axes[row, column], _coloured(sheet, background, style), f"{titles[column - 1]}\n{name}{shape}")
    from io import BytesIO

    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, buffer.getvalue())
    return file


def _show(axis: Any, picture: np.ndarray, title: str) -> None:
    axis.imshow(picture, vmin=0, vmax=1)
    axis.set_title(title, fontsize=8)
    axis.axis("off")


def _picture(image: Tensor) -> np.ndarray:
    """(C, H, W) -> (H, W, 3) in 0..1."""
    low, high = float(image.min()), float(image.max())
    shown = ((image - low) / max(high - low, 1e-12)).clamp(0, 1)
    shown = shown[:3] if shown.shape[0] >= 3 else shown[:1].expand(3, -1, -1)
    return shown.permute(1, 2, 0).numpy()


def _tiled(maps: Tensor, style: MapStyle, size: tuple[int, ...]) -> Tensor:
    """(K, H, W) -> one sheet of the style's arrangement, every map resized."""
    target = list(style.resize_shape or size)
    maps = functional.interpolate(maps[None], target, mode="bilinear", align_corners=False)[0]
    if len(maps) == 1:
        return maps[0]
    columns = min(style.arrangement[1], len(maps))
    rows = math.ceil(len(maps) / columns)
    sheet = torch.zeros(rows * target[0], columns * target[1])
    for index, one in enumerate(maps):
        row, column = divmod(index, columns)
        sheet[row * target[0] : (row + 1) * target[0], column * target[1] : (column + 1) * target[1]] = one
    return sheet


def _coloured(sheet: Tensor, background: np.ndarray, style: MapStyle) -> np.ndarray:
    import matplotlib

    colours: np.ndarray = matplotlib.colormaps["viridis"](sheet.numpy())[..., :3]
    if not style.overlaid or colours.shape != background.shape:
        return colours
    return style.alpha * background + (1 - style.alpha) * colours
