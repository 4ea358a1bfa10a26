"""Batch norms of elastic width."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.modules._functions import SyncBatchNorm as SyncFunction
from torch.nn.modules.batchnorm import _BatchNorm

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin, sliced_buffer, sliced_parameter
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.selection import take, write_back


class DynamicBatchNormMixin(DynamicChannelMixin, _BatchNorm):
    """Elastic ``num_features`` of a batch norm; statistics of channels that are not kept stay as they are."""

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"num_features"})
    attr_mappings: ClassVar[dict[str, str]] = {"in_channels": "num_features", "out_channels": "num_features"}

    @classmethod
    def check_convertible(cls, module: nn.Module) -> None:
        """Raise ``ModelError`` where ``module`` is no batch norm."""
        if not isinstance(module, _BatchNorm):
            raise ModelError(f"{cls.__name__} stands in for a batch norm, got {type(module).__name__}")

    def _check_mutable(self, key: str, mutable: BaseMutable) -> None:
        super()._check_mutable(key, mutable)
        if not self.affine and not self.track_running_stats:
            raise ModelError(
                f"{type(self).__name__}: without affine parameters and running statistics there is nothing to slice"
            )

    def forward(self, input: Tensor) -> Tensor:
        """(N, C kept, ...) -> (N, C kept, ...); C where ``masked`` is set."""
        self._check_input_dim(input)
        return self._run(input)

    def get_dynamic_params(self) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Running mean, running variance, weight and bias of the kept channels; None for what there is not."""
        mask = self.mask_of("num_features")
        parts = (self.running_mean, self.running_var, self.weight, self.bias)
        mean, var, weight, bias = (None if part is None else take(part, mask, 0) for part in parts)
        return mean, var, weight, bias

    def _forward_sliced(self, x: Tensor) -> Tensor:
        mean, var, weight, bias = self.get_dynamic_params()
        from_batch = self.training or (mean is None and var is None)
        tracks = self.training and self.track_running_stats
        factor = self._count_batch() if tracks else 0.0
        if not tracks and self.training:
            mean = var = None
        out = self._normalize(x, mean, var, weight, bias, from_batch, factor)
        if tracks and mean is not None and var is not None:
            mask = self.mask_of("num_features")
            with torch.no_grad():
                write_back(self.running_mean, mean, mask)  # type: ignore[arg-type]
                write_back(self.running_var, var, mask)  # type: ignore[arg-type]
        return out

    def _count_batch(self) -> float:
        """Count one batch; the weight of the new statistics in the running ones."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.momentum is not None:
            return self.momentum
        return 1.0 / float(self.num_batches_tracked) if self.num_batches_tracked is not None else 0.0

    def _normalize(
        self,
        x: Tensor,
        mean: Tensor | None,
        var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        from_batch: bool,
        factor: float,
    ) -> Tensor:
        return functional.batch_norm(x, mean, var, weight, bias, from_batch, factor, self.eps)

    def _slice_into(self, static: Any) -> None:
        mask = self.mask_of("num_features")
        static.num_features = self.num_features if mask is None else int(mask.sum())
        if self.affine:
            static.weight = sliced_parameter(self.weight, mask)
            static.bias = sliced_parameter(self.bias, mask)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                static._buffers[name] = sliced_buffer(buffer, mask if buffer.dim() else None)


class DynamicBatchNorm1d(DynamicBatchNormMixin, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` of elastic width; takes its arguments."""

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``nn.BatchNorm1d``."""
        return nn.BatchNorm1d


class DynamicBatchNorm2d(DynamicBatchNormMixin, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` of elastic width; takes its arguments."""

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``nn.BatchNorm2d``."""
        return nn.BatchNorm2d


class DynamicBatchNorm3d(DynamicBatchNormMixin, nn.BatchNorm3d):
    """``nn.BatchNorm3d`` of elastic width; takes its arguments."""

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``nn.BatchNorm3d``."""
        return nn.BatchNorm3d


class DynamicBatchNormXd(DynamicBatchNormMixin):
    """mmengine's batch norm for any rank, which SyncBatchNorm is reverted to, of elastic width."""

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """mmengine's ``_BatchNormXd``."""
        from mmengine.model.utils import _BatchNormXd

        return _BatchNormXd

    def _check_input_dim(self, input: Tensor) -> None:
        """Any rank will do."""


class DynamicSyncBatchNorm(DynamicBatchNormMixin, nn.SyncBatchNorm):
    """``nn.SyncBatchNorm`` of elastic width: in training, statistics are over the batches of all processes.

    The ranks have to keep the same channels; without a process group, or in one of a single process, it is a plain
    batch norm.
    """

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``nn.SyncBatchNorm``."""
        return nn.SyncBatchNorm

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ModelError(f"{type(self).__name__}: expected an input of at least 2 dimensions, got {input.dim()}")

    def _normalize(
        self,
        x: Tensor,
        mean: Tensor | None,
        var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        from_batch: bool,
        factor: float,
    ) -> Tensor:
        synced = self.training and distributed.is_available() and distributed.is_initialized()
        size = distributed.get_world_size(self.process_group) if synced else 1
        if size == 1:
            return super()._normalize(x, mean, var, weight, bias, from_batch, factor)
        group = self.process_group if self.process_group is not None else distributed.group.WORLD
        return SyncFunction.apply(x, weight, bias, mean, var, self.eps, factor, group, size)
