"""The elastic vision transformer of AutoFormer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from razordeploy.compress.nas.supernets.backbone import SearchableBackbone
from razordeploy.compress.nas.supernets.layers import Config, DropPath, build_activation, build_norm, follow
from razordeploy.errors import RecipeError
from razordeploy.subnet.dynamic_ops.attention import DynamicMultiheadAttention, DynamicPatchEmbed
from razordeploy.subnet.dynamic_ops.base import DynamicMixin, sliced_parameter
from razordeploy.subnet.dynamic_ops.linear import DynamicLinear
from razordeploy.subnet.dynamic_ops.sequential import DynamicSequential
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.channel import OneShotMutableChannel
from razordeploy.subnet.mutables.formulas import channels
from razordeploy.subnet.mutables.value import OneShotMutableValue
from razordeploy.subnet.selection import take


class TransformerEncoderLayer(nn.Module):
    """Attention and a two-layer perceptron, each after a norm and beside a shortcut.

    Args:
        embed_dims: channels of the tokens.
        num_heads: heads of ``head_dims`` channels.
        mlp_ratio: hidden channels of the perceptron by ``embed_dims``.
        drop_rate: dropout after attention and perceptron.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth.
        qkv_bias: biases of queries, keys and values.
        act_cfg: of the perceptron.
        norm_cfg: an elastic layer norm.
        head_dims: channels of a head.
        max_relative_position: as of ``MultiheadAttention``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: float,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        act_cfg: Config = "GELU",
        norm_cfg: Config = "DynamicLayerNorm",
        head_dims: int = 64,
        max_relative_position: int = 14,
    ) -> None:
        super().__init__()
        self.ln1 = build_norm(norm_cfg, embed_dims)
        self.attn = DynamicMultiheadAttention(
            embed_dims=embed_dims,
            num_heads=num_heads,
            attn_drop_rate=attn_drop_rate,
            out_drop_rate=drop_rate,
            qkv_bias=qkv_bias,
            head_dims=head_dims,
            max_relative_position=max_relative_position,
        )
        self.ln2 = build_norm(norm_cfg, embed_dims)
        hidden = int(embed_dims * mlp_ratio)
        self.fc1 = DynamicLinear(embed_dims, hidden)
        self.fc2 = DynamicLinear(hidden, embed_dims)
        self.act = build_activation(act_cfg)
        self.drop = nn.Dropout(drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def register_mutables(
        self, num_heads: BaseMutable, mlp_ratios: BaseMutable, head_dims: BaseMutable, embed_dims: BaseMutable
    ) -> None:
        """Make the layer elastic; queries, keys and values keep whole heads, the first ones."""
        self.mutable_mlp_ratios = mlp_ratios
        self.mutable_q_embed_dims = num_heads * head_dims  # type: ignore[operator]
        self.middle_channels = mlp_ratios * embed_dims  # type: ignore[operator]
        self.attn.register_mutable_attr("num_heads", num_heads)
        follow(self.attn, embed_dims, self.mutable_q_embed_dims)
        for norm in (self.ln1, self.ln2):
            follow(norm, outputs=embed_dims)
        follow(self.fc1, embed_dims, self.middle_channels)
        follow(self.fc2, self.middle_channels, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, L, embed kept) -> (N, L, embed kept)."""
        x = x + self.drop_path(self.attn(self.ln1(x)))
        y = self.drop(self.fc2(self.drop(self.act(self.fc1(self.ln2(x))))))
        return x + self.drop_path(y)


class VisionTransformer(SearchableBackbone):
    """Patches, a class token, positions, transformer layers, a norm, and the mean of the patches' tokens.

    What an ``AutoformerBackbone`` is once it is sliced.
    """

    cls_token: nn.Parameter
    pos_embed: nn.Parameter

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, img_size, img_size) -> ((N, embed_dims),)."""
        me: Any = self
        x = me.patch_embed(x)
        x = torch.cat((self._narrowed(self.cls_token).expand(x.shape[0], -1, -1), x), dim=1)
        x = me.drop_after_pos(x + self._narrowed(self.pos_embed))
        x = me.blocks(x)
        if me.use_final_norm:
            x = me.ln(x)
        return (x[:, 1:].mean(dim=1),)

    def _narrowed(self, parameter: Tensor) -> Tensor:
        return parameter

    def stem_and_stages(self) -> list[nn.Module]:
        """The patch embedding and the layers."""
        me: Any = self
        return [me.patch_embed, *me.blocks]


class AutoformerBackbone(DynamicMixin, VisionTransformer):
    """Elastic embedding, depth, heads and perceptrons (AutoFormer, arXiv 2107.00651), weights entangled: a narrower
    layer is the first part of a wider one.

    Args:
        img_size: side of the images.
        patch_size: side of a patch.
        in_channels: channels of the images.
        drop_rate: dropout.
        drop_path_rate: stochastic depth of the last layer; it grows linearly from 0.
        qkv_bias: biases of queries, keys and values.
        norm_cfg: an elastic layer norm.
        act_cfg: of the perceptrons.
        use_final_norm: a norm after the last layer.
        init_cfg: as of ``SearchableBackbone``.
        mlp_ratios: hidden channels by ``embed_dims``, chosen in each layer.
        num_heads: chosen in each layer.
        depth: layers; the first ones run.
        embed_dims: channels of the tokens.
        head_dims: channels of a head.
        max_relative_position: as of ``MultiheadAttention``.

    Raises:
        RecipeError: the patches do not fill the image.
    """

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"embed_dims"})
    own_tensors_only: ClassVar[bool] = True

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        norm_cfg: Config = "DynamicLayerNorm",
        act_cfg: Config = "GELU",
        use_final_norm: bool = True,
        init_cfg: Any = None,
        mlp_ratios: Sequence[float] = (3.0, 3.5, 4.0),
        num_heads: Sequence[int] = (8, 9, 10),
        depth: Sequence[int] = (14, 15, 16),
        embed_dims: Sequence[int] = (528, 576, 624),
        head_dims: int = 64,
        max_relative_position: int = 14,
    ) -> None:
        if img_size % patch_size:
            raise RecipeError(f"AutoformerBackbone: patches of {patch_size} do not fill images of {img_size}")
        super().__init__(1, (0,), init_cfg=init_cfg)
        layers, width = max(depth), max(embed_dims)
        self.mutable_depth = OneShotMutableValue(list(depth))
        self.mutable_embed_dims = OneShotMutableChannel(width, list(embed_dims))
        self.base_embed_dims = OneShotMutableChannel(head_dims, [head_dims])
        self.patch_embed = DynamicPatchEmbed(img_size, in_channels, width, patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 1, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.drop_after_pos = nn.Dropout(drop_rate)
        rates = torch.linspace(0, drop_path_rate, layers).tolist()
        blocks = [
            TransformerEncoderLayer(
                width,
                max(num_heads),
                max(mlp_ratios),
                drop_rate=drop_rate,
                drop_path_rate=rate,
                qkv_bias=qkv_bias,
                act_cfg=act_cfg,
                norm_cfg=norm_cfg,
                head_dims=head_dims,
                max_relative_position=max_relative_position,
            )
            for rate in rates
        ]
        self.blocks = DynamicSequential(*blocks)
        self.use_final_norm = use_final_norm
        if use_final_norm:
            self.ln = build_norm(norm_cfg, width)
            follow(self.ln, outputs=self.mutable_embed_dims)
        self.register_mutable_attr("embed_dims", self.mutable_embed_dims)
        self.blocks.register_mutable_attr("depth", self.mutable_depth)
        follow(self.patch_embed, outputs=self.mutable_embed_dims)
        for block in blocks:
            heads, ratios = OneShotMutableValue(list(num_heads)), OneShotMutableValue(list(mlp_ratios))
            block.register_mutables(heads, ratios, self.base_embed_dims, self.mutable_embed_dims)
        # Last of the modules: mutables go by the first path that leads to them.
        self._modules["mutable_attrs"] = self._modules.pop("mutable_attrs")

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``VisionTransformer``."""
        return VisionTransformer

    @property
    def last_mutable(self) -> BaseMutable:
        """The channels of the output, for ``connect_head``."""
        return self.mutable_embed_dims

    def _narrowed(self, parameter: Tensor) -> Tensor:
        return take(parameter, channels(self.mutable_embed_dims), -1)

    def _slice_into(self, static: Any) -> None:
        mask = channels(self.mutable_embed_dims)
        static.cls_token = sliced_parameter(self.cls_token, None, None, mask)
        static.pos_embed = sliced_parameter(self.pos_embed, None, None, mask)
