"""What operations of one-shot search spaces have in common, and the one that does nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from razordeploy.compress.nas.supernets.layers import Config, ConvModule, DropPath
from razordeploy.errors import RecipeError


class BaseOP(nn.Module):
    """An operation at its place in a network.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: 1 or 2.
        init_cfg: taken for mmengine's sake.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, init_cfg: Any = None) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise RecipeError(f"{type(self).__name__}: expected stride 1 or 2, got {stride}")
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride


class ResidualOP(BaseOP, ABC):
    """An operation with stochastic depth, and a shortcut where the shape allows one.

    Args:
        in_channels: as of ``BaseOP``, like ``out_channels``, ``stride`` and ``init_cfg``.
        out_channels: see there.
        stride: see there.
        shortcut: whether there is one where it can be.
        drop_path_rate: probability with which a sample skips the operation.
        init_cfg: see there.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        shortcut: bool = True,
        drop_path_rate: float = 0.0,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, init_cfg)
        self.has_residual = shortcut and stride == 1 and in_channels == out_channels
        self.drop_path = DropPath(drop_path_rate)

    @property
    def drop_path_rate(self) -> float:
        """Probability with which a sample skips the residual branch."""
        return self.drop_path.drop_prob

    @drop_path_rate.setter
    def drop_path_rate(self, value: float) -> None:
        self.drop_path.drop_prob = float(value)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y = self._branch(x)
        return x + self.drop_path(y) if self.has_residual else y

    @abstractmethod
    def _branch(self, x: Tensor) -> Tensor: ...


def recomputed(run: Callable[[Tensor], Tensor], x: Tensor, wanted: bool) -> Tensor:
    """``run(x)``; where ``wanted``, its activations are computed again in the backward pass instead of kept."""
    if wanted and x.requires_grad:
        from torch.utils.checkpoint import checkpoint

        out: Tensor = checkpoint(run, x, use_reentrant=False)
        return out
    return run(x)


class Identity(BaseOP):
    """Nothing; where the shape changes, a 1x1 convolution and a norm. Takes the arguments of ``BaseOP``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        conv_cfg: Config = None,
        norm_cfg: Config = "BN",
        act_cfg: Config = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, init_cfg)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = ConvModule(
                in_channels, out_channels, 1, stride, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        return x if self.downsample is None else self.downsample(x)
