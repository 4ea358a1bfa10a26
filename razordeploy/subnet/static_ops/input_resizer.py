"""Images to the size that a subnet wants."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError

_MODES = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area")


class InputResizer(nn.Module):
    """Resizes its input; the arguments are those of ``torch.nn.functional.interpolate``.

    Args:
        interpolation_type: the mode.
        align_corners: None for modes that have no corners to align.
        scale_factor: a factor, where no size is given.
        recompute_scale_factor: as of ``interpolate``.
        size: side or (H, W) of the output; None: given in the call, else by ``scale_factor``, else as it is.
    """

    def __init__(
        self,
        interpolation_type: str = "bicubic",
        align_corners: bool | None = False,
        scale_factor: float | Sequence[float] | None = None,
        recompute_scale_factor: bool | None = None,
        size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if interpolation_type not in _MODES:
            raise ModelError(f"expected an interpolation_type of {_MODES}, got {interpolation_type!r}")
        self._interpolation_type = interpolation_type
        self._align_corners = (
            align_corners if "linear" in interpolation_type or interpolation_type == "bicubic" else None
        )
        self._scale_factor = scale_factor
        self._recompute_scale_factor = recompute_scale_factor
        self._size = size

    def forward(self, x: Tensor, size: int | Sequence[int] | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C, *size)."""
        size = self._size if size is None else size
        if size is None and self._scale_factor is None:
            return x
        target = [size] * (x.dim() - 2) if isinstance(size, int) else size
        if target is not None and tuple(x.shape[2:]) == tuple(target):
            return x
        return functional.interpolate(
            x,
            size=None if target is None else list(target),
            scale_factor=None if target is not None else self._scale_factor,
            mode=self._interpolation_type,
            align_corners=self._align_corners,
            recompute_scale_factor=self._recompute_scale_factor,
        )
