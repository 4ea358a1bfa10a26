"""AutoFormer's attention, relative positions and patch embedding, of elastic width and number of heads."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin, sliced_parameter
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.selection import take
from razordeploy.subnet.static_ops.attention import MultiheadAttention
from razordeploy.subnet.static_ops.patch_embed import PatchEmbed
from razordeploy.subnet.static_ops.relative_position import RelativePosition2D


class DynamicRelativePosition2D(DynamicChannelMixin, RelativePosition2D):
    """``RelativePosition2D`` of elastic ``head_dims``; takes its arguments."""

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"head_dims"})
    attr_mappings: ClassVar[dict[str, str]] = {"in_channels": "head_dims", "out_channels": "head_dims"}

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``RelativePosition2D``."""
        return RelativePosition2D

    def forward(self, length_q: int, length_k: int) -> Tensor:
        """Embeddings (length_q, length_k, head_dims kept)."""
        mask = self.mask_of("head_dims")
        vertical, horizontal = take(self.embeddings_table_v, mask, 1), take(self.embeddings_table_h, mask, 1)
        return self.look_up(vertical, horizontal, length_q, length_k)

    def _slice_into(self, static: Any) -> None:
        mask = self.mask_of("head_dims")
        static.embeddings_table_v = sliced_parameter(self.embeddings_table_v, None, mask)
        static.embeddings_table_h = sliced_parameter(self.embeddings_table_h, None, mask)
        static.head_dims = static.embeddings_table_v.size(1)


class DynamicMultiheadAttention(DynamicChannelMixin, MultiheadAttention):
    """``MultiheadAttention`` of elastic ``num_heads``, ``embed_dims`` and ``q_embed_dims``; takes its arguments.

    ``embed_dims`` are the channels of the tokens, before and after; ``q_embed_dims`` those of all heads together,
    usually derived as ``num_heads * head_dims``, so that the heads that are kept stay whole.
    """

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"num_heads", "embed_dims", "q_embed_dims"})
    attr_mappings: ClassVar[dict[str, str]] = {"in_channels": "embed_dims", "out_channels": "q_embed_dims"}

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``MultiheadAttention``."""
        return MultiheadAttention

    @property
    def mutable_num_heads(self) -> BaseMutable | None:
        """What the number of heads follows."""
        return self.get_mutable_attr("num_heads")

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, L, embed kept) -> (N, L, embed kept)."""
        tokens, heads = self.mask_of("embed_dims"), self.mask_of("q_embed_dims")
        q, k, v = (_linear(layer, x, heads, tokens) for layer in (self.w_qs, self.w_ks, self.w_vs))
        attended = self.attend(q, k, v, self._num_heads(heads))
        return self.out_drop(_linear(self.proj, attended, tokens, heads))

    def _num_heads(self, mask: Tensor | None) -> int:
        width = self.q_embed_dims if mask is None else int(mask.sum())
        heads = self._choice("num_heads", None)
        if heads is None:
            heads = width // self.head_dims if width % self.head_dims == 0 else self.num_heads
        if width % heads:
            raise ModelError(f"DynamicMultiheadAttention: {width} channels cannot be shared by {heads} heads")
        return int(heads)

    def _check_mutable(self, key: str, mutable: BaseMutable) -> None:
        if key == "num_heads":
            if max(mutable.choices) > self.num_heads or min(mutable.choices) < 1:
                raise ModelError(
                    f"DynamicMultiheadAttention: expected from 1 to {self.num_heads} heads, got {mutable.choices}"
                )
            return
        super()._check_mutable(key, mutable)

    def _slice_into(self, static: Any) -> None:
        tokens, heads = self.mask_of("embed_dims"), self.mask_of("q_embed_dims")
        for name in ("w_qs", "w_ks", "w_vs"):
            static._modules[name] = _sliced_linear(getattr(self, name), heads, tokens)
        static._modules["proj"] = _sliced_linear(self.proj, tokens, heads)
        static.num_heads = self._num_heads(heads)
        static.q_embed_dims = static.w_qs.out_features
        static.embed_dims = static.input_dims = static.w_qs.in_features
        for name in ("rel_pos_embed_k", "rel_pos_embed_v"):
            part = self._modules.get(name)
            if isinstance(part, DynamicRelativePosition2D):
                static._modules[name] = part.to_static_op()


class DynamicPatchEmbed(DynamicChannelMixin, PatchEmbed):
    """``PatchEmbed`` of elastic ``embed_dims``; takes its arguments."""

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"embed_dims"})
    attr_mappings: ClassVar[dict[str, str]] = {"in_channels": "embed_dims", "out_channels": "embed_dims"}

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``PatchEmbed``."""
        return PatchEmbed

    @property
    def mutable_embed_dims(self) -> BaseMutable | None:
        """What the channels of the tokens follow."""
        return self.get_mutable_attr("embed_dims")

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> tokens (N, L, embed kept)."""
        mask = self.mask_of("embed_dims")
        layer = self.projection
        bias = None if layer.bias is None else take(layer.bias, mask, 0)
        y = functional.conv2d(x, take(layer.weight, mask, 0), bias, stride=layer.stride)
        return y.flatten(2).transpose(1, 2)

    def _slice_into(self, static: Any) -> None:
        mask = self.mask_of("embed_dims")
        layer: Any = copy.copy(self.projection)
        layer._parameters = {
            name: None if value is None else sliced_parameter(value, mask) for name, value in layer._parameters.items()
        }
        layer.out_channels = static.embed_dims = layer.weight.size(0)
        static._modules["projection"] = layer


def _linear(layer: nn.Linear, x: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    bias = None if layer.bias is None else take(layer.bias, rows, 0)
    return functional.linear(x, take(take(layer.weight, rows, 0), columns, 1), bias)


def _sliced_linear(layer: nn.Linear, rows: Tensor | None, columns: Tensor | None) -> nn.Linear:
    new: Any = copy.copy(layer)
    new._parameters = {
        "weight": sliced_parameter(layer.weight, rows, columns),
        "bias": None if layer.bias is None else sliced_parameter(layer.bias, rows),
    }
    new.out_features, new.in_features = new.weight.shape
    return new
