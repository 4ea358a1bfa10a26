"""Convolutions, norms and activations by the names that OpenMMLab's configs give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from razordeploy.errors import RecipeError, nearest

CONVS: dict[str, type[nn.Module]] = {
    "Conv": nn.Conv2d,
    "Conv1d": nn.Conv1d,
    "Conv2d": nn.Conv2d,
    "Conv3d": nn.Conv3d,
}
NORMS: dict[str, Callable[..., nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "BN1d": nn.BatchNorm1d,
    "BN2d": nn.BatchNorm2d,
    "BN3d": nn.BatchNorm3d,
    "SyncBN": nn.SyncBatchNorm,
    "GN": nn.GroupNorm,
    "LN": nn.LayerNorm,
    "IN": nn.InstanceNorm2d,
    "IN1d": nn.InstanceNorm1d,
    "IN2d": nn.InstanceNorm2d,
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "LeakyReLU": nn.LeakyReLU,
    "PReLU": nn.PReLU,
    "ELU": nn.ELU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
}
_WITHOUT_INPLACE = ("PReLU", "GELU", "Sigmoid", "Tanh")
_PARTS = ("conv", "norm", "act")


def build_norm(config: Mapping[str, Any], channels: int) -> nn.Module:
    """The norm that ``config`` names, for ``channels`` channels.

    Raises:
        RecipeError: an unknown type; names the nearest.
    """
    options = {"eps": 1e-5, **config}
    name, trained = str(options.pop("type", None)), options.pop("requires_grad", True)
    if name not in NORMS:
        raise RecipeError(f"unknown norm '{name}'", hint=nearest(name, NORMS))
    if name == "GN":
        if "num_groups" not in options:
            raise RecipeError("norm 'GN' needs num_groups", hint="norm_cfg=dict(type='GN', num_groups=32)")
        norm = NORMS[name](num_channels=channels, **options)
    else:
        norm = NORMS[name](channels, **options)
    return norm.requires_grad_(trained)


def build_activation(config: Mapping[str, Any], inplace: bool = False) -> nn.Module:
    """The activation that ``config`` names.

    Raises:
        RecipeError: an unknown type; names the nearest.
    """
    options = dict(config)
    name = str(options.pop("type", None))
    if name not in ACTIVATIONS:
        raise RecipeError(f"unknown activation '{name}'", hint=nearest(name, ACTIVATIONS))
    if name not in _WITHOUT_INPLACE:
        options.setdefault("inplace", inplace)
    return ACTIVATIONS[name](**options)


class ConvBlock(nn.Module):
    """Convolution, norm and activation in a chosen order; submodules are called ``conv``, ``bn`` and ``activate``.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: as for ``nn.Conv2d``, like the six that follow.
        stride: see there.
        padding: see there.
        dilation: see there.
        groups: see there.
        bias: ``auto``: only without a norm.
        padding_mode: see there.
        conv_cfg: ``dict(type='Conv2d')``; None: that.
        norm_cfg: ``dict(type='BN')``; None: no norm.
        act_cfg: ``dict(type='ReLU')``; None: no activation.
        inplace: whether the activation may overwrite its input.
        with_spectral_norm: reparametrise the weight by its largest singular value.
        order: of ``conv``, ``norm`` and ``act``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...] = 1,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool | str = "auto",
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        act_cfg: Mapping[str, Any] | None = None,
        inplace: bool = False,
        with_spectral_norm: bool = False,
        padding_mode: str = "zeros",
        order: Sequence[str] = _PARTS,
    ) -> None:
        super().__init__()
        if sorted(order) != sorted(_PARTS):
            raise RecipeError(f"expected an order of {', '.join(_PARTS)}, got {list(order)}")
        self.order = tuple(order)
        options = dict(conv_cfg or {"type": "Conv2d"})
        name = str(options.pop("type", None))
        if name not in CONVS:
            raise RecipeError(f"unknown convolution '{name}'", hint=nearest(name, CONVS))
        shape = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        with_bias = norm_cfg is None if bias == "auto" else bool(bias)
        conv = CONVS[name](
            in_channels, out_channels, kernel_size, bias=with_bias, padding_mode=padding_mode, **shape, **options
        )
        self.conv = nn.utils.parametrizations.spectral_norm(conv) if with_spectral_norm else conv
        before = self.order.index("norm") < self.order.index("conv")
        self.bn = build_norm(norm_cfg, in_channels if before else out_channels) if norm_cfg else None
        self.activate = build_activation(act_cfg, inplace) if act_cfg else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, ...) -> (N, C_out, ...)."""
        for part in self.order:
            layer = {"conv": self.conv, "norm": self.bn, "act": self.activate}[part]
            x = x if layer is None else layer(x)
        return x
