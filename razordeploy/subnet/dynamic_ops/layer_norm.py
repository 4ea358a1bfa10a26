"""Layer norms and group norms of elastic width."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin, sliced_parameter
from razordeploy.subnet.selection import take


class DynamicLayerNorm(DynamicChannelMixin, nn.LayerNorm):
    """``nn.LayerNorm`` over the last dimension, of elastic width; takes its arguments.

    Mean and variance are over the kept channels.
    """

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"num_features"})
    attr_mappings: ClassVar[dict[str, str]] = {"in_channels": "num_features", "out_channels": "num_features"}
    in_dim: ClassVar[int] = -1
    out_dim: ClassVar[int] = -1

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``nn.LayerNorm``."""
        return nn.LayerNorm

    @classmethod
    def check_convertible(cls, module: nn.Module) -> None:
        """Raise ``ModelError`` where ``module`` is no layer norm over one dimension, the last."""
        if not isinstance(module, nn.LayerNorm):
            raise ModelError(f"{cls.__name__} stands in for LayerNorm, got {type(module).__name__}")
        if len(module.normalized_shape) != 1:
            raise ModelError(f"{cls.__name__} normalises one dimension, got normalized_shape {module.normalized_shape}")
        cls._check_forward(module)

    @classmethod
    def _check_forward(cls, module: nn.Module) -> None:
        if type(module).forward is not nn.LayerNorm.forward:
            raise ModelError(f"{type(module).__name__} is no plain LayerNorm: {cls.__name__} cannot stand in for it")

    def width_of(self, attr: str) -> int:
        """Full number of channels."""
        self._attr_key(attr)
        return int(self.normalized_shape[0])

    def get_dynamic_params(self) -> tuple[Tensor | None, Tensor | None]:
        """Weight and bias of the kept channels; None for what there is not."""
        mask = self.mask_of("num_features")
        weight, bias = (None if part is None else take(part, mask, 0) for part in (self.weight, self.bias))
        return weight, bias

    def forward(self, input: Tensor) -> Tensor:
        """(..., C kept) -> (..., C kept); C where ``masked`` is set."""
        return self._run(input)

    def _forward_sliced(self, x: Tensor) -> Tensor:
        weight, bias = self.get_dynamic_params()
        return functional.layer_norm(x, (x.size(-1),), weight, bias, self.eps)

    def _slice_into(self, static: Any) -> None:
        mask = self.mask_of("num_features")
        kept = self.width_of("num_features") if mask is None else int(mask.sum())
        static.normalized_shape = (kept,)
        for name in ("weight", "bias"):
            parameter = getattr(self, name)
            if parameter is not None:
                setattr(static, name, sliced_parameter(parameter, mask))


class DynamicLayerNorm2d(DynamicLayerNorm):
    """The layer norm over the channels of images (N, C, H, W) that mmcls has, of elastic width."""

    @classmethod
    def _check_forward(cls, module: nn.Module) -> None:
        if type(module).__name__ != "LayerNorm2d":
            raise ModelError(f"{cls.__name__} stands in for LayerNorm2d, got {type(module).__name__}")

    def forward(self, input: Tensor, data_format: str = "channel_first") -> Tensor:
        """(N, C kept, H, W), or (N, H, W, C kept) in the format ``channel_last``, to the same shape."""
        if data_format == "channel_last":
            return self._run(input)
        return self._run(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()

    def _slice_into(self, static: Any) -> None:
        super()._slice_into(static)
        static.num_channels = static.normalized_shape[0]


class DynamicGroupNorm(DynamicChannelMixin, nn.GroupNorm):
    """``nn.GroupNorm`` of elastic width; takes its arguments.

    Every group that stays has to keep equally many channels; groups that keep none go.
    """

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"num_channels"})
    attr_mappings: ClassVar[dict[str, str]] = {"in_channels": "num_channels", "out_channels": "num_channels"}

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``nn.GroupNorm``."""
        return nn.GroupNorm

    @classmethod
    def check_convertible(cls, module: nn.Module) -> None:
        """Raise ``ModelError`` where ``module`` is no plain group norm."""
        if not isinstance(module, nn.GroupNorm) or type(module).forward is not nn.GroupNorm.forward:
            raise ModelError(f"{cls.__name__} stands in for a plain GroupNorm, got {type(module).__name__}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C kept, ...) -> (N, C kept, ...); C where ``masked`` is set."""
        return self._run(input)

    def _groups(self, mask: Tensor | None) -> int:
        if mask is None:
            return self.num_groups
        kept = mask.view(self.num_groups, -1).sum(1)
        alive = kept[kept > 0]
        if alive.unique().numel() > 1:
            raise ModelError(
                f"a group norm has to keep equally many channels in each of its {self.num_groups} groups that stays, "
                f"got {kept.tolist()}"
            )
        return alive.numel()

    def _forward_sliced(self, x: Tensor) -> Tensor:
        mask = self.mask_of("num_channels")
        weight, bias = (None if part is None else take(part, mask, 0) for part in (self.weight, self.bias))
        return functional.group_norm(x, self._groups(mask), weight, bias, self.eps)

    def _slice_into(self, static: Any) -> None:
        mask = self.mask_of("num_channels")
        static.num_groups = self._groups(mask)
        static.num_channels = self.num_channels if mask is None else int(mask.sum())
        if self.affine:
            static.weight = sliced_parameter(self.weight, mask)
            static.bias = sliced_parameter(self.bias, mask)
