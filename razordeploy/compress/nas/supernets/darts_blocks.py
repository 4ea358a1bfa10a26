"""The operations of the DARTS search space (arXiv 1806.09055, section 3.1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.compress.nas.supernets.layers import Config, DropPath, build_activation, build_norm
from razordeploy.compress.nas.supernets.operation import BaseOP
from razordeploy.errors import RecipeError

_DROP_PROB = 0.1


class _DartsOP(BaseOP, ABC):
    """Base: a path that samples may skip.

    Args:
        in_channels: as of ``BaseOP``, like ``out_channels`` and ``stride``.
        out_channels: see there.
        stride: see there.
        use_drop_path: samples skip the operation with probability 0.1 in training.
        norm_cfg: of every norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        use_drop_path: bool = False,
        norm_cfg: Config = "BN",
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.norm_cfg = norm_cfg
        self.drop_path = DropPath(_DROP_PROB) if use_drop_path else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / stride, W / stride)."""
        y = self._run(x)
        return y if self.drop_path is None else self.drop_path(y)

    @abstractmethod
    def _run(self, x: Tensor) -> Tensor: ...

    def _norm(self) -> nn.Module:
        return build_norm(self.norm_cfg, self.out_channels)


class DartsPoolBN(_DartsOP):
    """Pooling and a norm; ``pool_type`` is ``max`` or ``avg``."""

    def __init__(self, pool_type: str, kernel_size: int = 3, **place: Any) -> None:
        super().__init__(**place)
        if pool_type not in ("max", "avg"):
            raise RecipeError(f"DartsPoolBN: expected pool_type 'max' or 'avg', got {pool_type!r}")
        padding = kernel_size // 2
        self.pool: nn.Module = nn.MaxPool2d(kernel_size, self.stride, padding)
        if pool_type == "avg":
            self.pool = nn.AvgPool2d(kernel_size, self.stride, padding, count_include_pad=False)
        self.bn = self._norm()

    def _run(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.pool(x))
        return y


class DartsDilConv(_DartsOP):
    """A depthwise separable convolution of dilation 2."""

    def __init__(self, kernel_size: int, **place: Any) -> None:
        super().__init__(**place)
        self.conv1 = _separable(self.in_channels, self.out_channels, kernel_size, self.stride, 2, self._norm())

    def _run(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv1(x)
        return y


class DartsSepConv(_DartsOP):
    """A depthwise separable convolution twice; the first has the stride."""

    def __init__(self, kernel_size: int, **place: Any) -> None:
        super().__init__(**place)
        first = build_norm(self.norm_cfg, self.in_channels)
        self.conv1 = _separable(self.in_channels, self.in_channels, kernel_size, self.stride, 1, first)
        self.conv2 = _separable(self.in_channels, self.out_channels, kernel_size, 1, 1, self._norm())

    def _run(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x))
        return y


class DartsSkipConnect(_DartsOP):
    """Nothing at stride 1, where no sample skips either; at stride 2 a ``FactorizedReduce``."""

    def __init__(self, **place: Any) -> None:
        super().__init__(**place)
        if self.stride > 1:
            self.relu = nn.ReLU()
            self.conv1, self.conv2 = _halves(self.in_channels, self.out_channels)
            self.bn = self._norm()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / stride, W / stride)."""
        return x if self.stride == 1 else super().forward(x)

    def _run(self, x: Tensor) -> Tensor:
        return _reduced(self, x)


class DartsZero(BaseOP):
    """Zeros; takes the arguments of ``BaseOP``."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / stride, W / stride)."""
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class FactorizedReduce(nn.Module):
    """Half the size by two 1x1 convolutions, the second of which sees the pixels that the first leaves out."""

    def __init__(self, in_channels: int, out_channels: int, act_cfg: Config = "ReLU", norm_cfg: Config = "BN") -> None:
        super().__init__()
        self.relu = build_activation(act_cfg)
        self.conv1, self.conv2 = _halves(in_channels, out_channels)
        self.bn = build_norm(norm_cfg, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / 2, W / 2)."""
        return _reduced(self, x)


class StandardConv(nn.Module):
    """Activation, 1x1 convolution, norm."""

    def __init__(self, in_channels: int, out_channels: int, act_cfg: Config = "ReLU", norm_cfg: Config = "BN") -> None:
        super().__init__()
        self.net = nn.Sequential(
            build_activation(act_cfg),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            build_norm(norm_cfg, out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)."""
        y: Tensor = self.net(x)
        return y


def _separable(inputs: int, outputs: int, kernel: int, stride: int, dilation: int, norm: nn.Module) -> nn.Sequential:
    padding = kernel // 2 * dilation
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, inputs, kernel, stride, padding, dilation=dilation, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        norm,
    )


def _halves(inputs: int, outputs: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    if outputs % 2:
        raise RecipeError(f"DARTS: expected an even number of channels where the size is halved, got {outputs}")
    return tuple(nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False) for _ in range(2))  # type: ignore[return-value]


def _reduced(module: Any, x: Tensor) -> Tensor:
    x = module.relu(x)
    y: Tensor = module.bn(torch.cat([module.conv1(x), module.conv2(x[:, :, 1:, 1:])], dim=1))
    return y


DARTS_OPERATIONS: dict[str, type[nn.Module]] = {
    "DartsDilConv": DartsDilConv,
    "DartsPoolBN": DartsPoolBN,
    "DartsSepConv": DartsSepConv,
    "DartsSkipConnect": DartsSkipConnect,
    "DartsZero": DartsZero,
}
"""The operations that a config may name as candidates."""
