"""The cells of DARTS, as a supernet and, fixed, as the network that is trained at the end."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.compress.nas.supernets.backbone import SearchableBackbone
from razordeploy.compress.nas.supernets.darts_blocks import FactorizedReduce, StandardConv
from razordeploy.compress.nas.supernets.layers import Config, bare_name, build_norm
from razordeploy.errors import RecipeError


class Node(nn.Module):
    """A sum over edges from all earlier nodes, each a mixture of operations.

    Args:
        node_id: alias of the route; an edge adds ``_pN``.
        num_prev_nodes: edges.
        channels: of every node.
        num_downsample_nodes: the first edges, which halve the size.
        mutable_cfg: of an edge.
        route_cfg: of the route.
    """

    def __init__(
        self,
        node_id: str,
        num_prev_nodes: int,
        channels: int,
        num_downsample_nodes: int,
        mutable_cfg: Mapping[str, Any],
        route_cfg: Mapping[str, Any],
    ) -> None:
        from razordeploy.registry import build_model

        super().__init__()
        edges = nn.ModuleDict()
        for index in range(num_prev_nodes):
            place = {
                "in_channels": channels,
                "out_channels": channels,
                "stride": 2 if index < num_downsample_nodes else 1,
            }
            alias = f"{node_id}_p{index}"
            config = {**copy.deepcopy(dict(mutable_cfg)), "module_kwargs": place, "alias": alias}
            edges[alias] = build_model(config, "mutable_cfg")
        self.edges = build_model({**route_cfg, "edges": edges, "alias": node_id}, "route_cfg")

    def forward(self, prev_nodes: Sequence[Tensor]) -> Tensor:
        """Earlier nodes -> (N, channels, H, W)."""
        y: Tensor = self.edges(prev_nodes)
        return y


class Cell(nn.Module):
    """Two inputs, ``num_nodes`` nodes, whose outputs are concatenated.

    Args:
        num_nodes: inner nodes.
        channels: of each.
        prev_channels: of the cell before.
        prev_prev_channels: of the one before that.
        reduction: halves the size.
        prev_reduction: the cell before did.
        mutable_cfg: as of ``DartsBackbone``, and so are ``route_cfg``, ``act_cfg`` and ``norm_cfg``.
        route_cfg: see there.
        act_cfg: see there.
        norm_cfg: see there.
    """

    def __init__(
        self,
        num_nodes: int,
        channels: int,
        prev_channels: int,
        prev_prev_channels: int,
        reduction: bool,
        prev_reduction: bool,
        mutable_cfg: Mapping[str, Any],
        route_cfg: Mapping[str, Any],
        act_cfg: Config = "ReLU",
        norm_cfg: Config = "BN",
    ) -> None:
        super().__init__()
        first = FactorizedReduce if prev_reduction else StandardConv
        self.preproc0: nn.Module = first(prev_prev_channels, channels, act_cfg, norm_cfg)
        self.preproc1 = StandardConv(prev_channels, channels, act_cfg, norm_cfg)
        kind = "reduce" if reduction else "normal"
        halved = 2 if reduction else 0
        self.nodes = nn.ModuleList(
            Node(f"{kind}_n{depth}", depth, channels, halved, mutable_cfg, route_cfg)
            for depth in range(2, num_nodes + 2)
        )

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        """Outputs of the two cells before -> (N, num_nodes * channels, H, W)."""
        tensors = [self.preproc0(s0), self.preproc1(s1)]
        for node in self.nodes:
            tensors.append(node(tensors))
        return torch.cat(tensors[2:], dim=1)


class AuxiliaryModule(nn.Module):
    """Features of an auxiliary classifier, from 8x8 maps of CIFAR."""

    def __init__(self, in_channels: int, base_channels: int, out_channels: int, norm_cfg: Config = "BN") -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=2, padding=0, count_include_pad=False),
            nn.Conv2d(in_channels, base_channels, 1, bias=False),
            build_norm(norm_cfg, base_channels),
            nn.ReLU(),
            nn.Conv2d(base_channels, out_channels, 2, bias=False),
            build_norm(norm_cfg, out_channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, 8, 8) -> (N, out_channels, 1, 1)."""
        y: Tensor = self.net(x)
        return y


class DartsBackbone(SearchableBackbone):
    """Normal and reduction cells of mixed operations (DARTS, arXiv 1806.09055).

    The cells at one and two thirds of the depth halve the size and double the channels. Cells of one kind make the
    same choices, which go by the aliases ``normal_nX``, ``normal_nX_pY``, ``reduce_nX`` and ``reduce_nX_pY``.

    Args:
        in_channels: channels of the images.
        base_channels: of a node of the first cells.
        mutable_cfg: of an edge, such as ``dict(type='DiffMutableOP', candidates=...)``.
        route_cfg: of a node's edges, such as ``dict(type='DiffChoiceRoute', with_arch_param=True)``.
        num_layers: cells.
        num_nodes: inner nodes of a cell.
        stem_multiplier: channels of the stem by ``base_channels``.
        out_indices: cells whose outputs are returned, the last among them.
        auxliary: in training an auxiliary feature (N, aux_out_channels, 1, 1) comes before the others.
        aux_channels: of its hidden layer.
        aux_out_channels: its channels.
        act_cfg: before every preprocessing convolution.
        norm_cfg: of stem and preprocessing; ``affine=False`` while searching.
        init_cfg: as of ``SearchableBackbone``.
    """

    def __init__(
        self,
        in_channels: int,
        base_channels: int,
        mutable_cfg: Mapping[str, Any],
        route_cfg: Mapping[str, Any],
        num_layers: int = 8,
        num_nodes: int = 4,
        stem_multiplier: int = 3,
        out_indices: Sequence[int] = (7,),
        auxliary: bool = False,
        aux_channels: int | None = None,
        aux_out_channels: int | None = None,
        act_cfg: Config = "ReLU",
        norm_cfg: Config = "BN",
        init_cfg: Any = None,
    ) -> None:
        super().__init__(num_layers, out_indices, init_cfg=init_cfg)
        if out_indices[-1] != num_layers - 1:
            raise RecipeError(f"DartsBackbone: expected out_indices to end with {num_layers - 1}, got {out_indices}")
        if auxliary and (aux_channels is None or aux_out_channels is None):
            raise RecipeError("DartsBackbone: auxliary needs aux_channels and aux_out_channels")
        self.auxliary_indice = 2 * num_layers // 3 if auxliary else -1
        channels = stem_multiplier * base_channels
        name, options = bare_name(norm_cfg, "BN")
        # The stem's norm has parameters also where those of the cells have none.
        stem_norm = {**options, "type": name, "affine": True}
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False), build_norm(stem_norm, channels)
        )
        before_last = last = channels
        channels = base_channels
        self.cells = nn.ModuleList()
        prev_reduction = False
        for index in range(num_layers):
            reduction = index in (num_layers // 3, 2 * num_layers // 3)
            channels *= 2 if reduction else 1
            cell = Cell(
                num_nodes,
                channels,
                last,
                before_last,
                reduction,
                prev_reduction,
                mutable_cfg,
                route_cfg,
                act_cfg,
                norm_cfg,
            )
            self.cells.append(cell)
            prev_reduction = reduction
            before_last, last = last, channels * num_nodes
            if index == self.auxliary_indice and aux_channels is not None and aux_out_channels is not None:
                self.auxliary_module = AuxiliaryModule(last, aux_channels, aux_out_channels, norm_cfg)
        self.out_channels = last

    def stem_and_stages(self) -> list[nn.Module]:
        """The stem and the cells."""
        return [self.stem, *self.cells]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> the feature maps of ``out_indices``, perhaps the auxiliary one first."""
        found: list[Tensor] = []
        s0 = s1 = self.stem(x)
        for index, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1)
            if index in self.out_indices:
                found.append(s1)
            if index == self.auxliary_indice and self.training:
                found.insert(0, self.auxliary_module(s1))
        return tuple(found)
