"""Dynamic-coded filter fusion."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor

from razordeploy.compress.algorithm.base import Losses
from razordeploy.compress.pruning.algorithms.ite_prune import ItePruneAlgorithm
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.pruners import DCFFChannelMutator


class DCFF(ItePruneAlgorithm):
    """Trains a model whose kept filters are each fused from all (Lin et al. 2021, arXiv 2107.06916).

    The fusion is made anew at the start of every epoch, at a temperature that falls with the epochs, so that in the
    end each fused filter is one of the filters and the compact model is a plain one. Takes the arguments of
    ``ItePruneAlgorithm``; steps count epochs unless ``by_epoch`` says otherwise.
    """

    mutator_type: ClassVar[type[ChannelMutator]] = DCFFChannelMutator
    default_by_epoch: ClassVar[bool] = True
    _fused_at: int | None = None

    def loss(self, inputs: Tensor, data_samples: Any = None) -> Losses:
        """The architecture's losses; fuses first where an epoch begins or the structure has changed."""
        if self.training:
            before = self._last
            self.prune_if_due()
            if self._fused_at != self.schedule.epoch or before != self._last:
                self.mutator.calc_information(temperature(self.schedule.epoch, self.schedule.epochs))
                self._fused_at = self.schedule.epoch
        return super().loss(inputs, data_samples)

    def settle(self) -> None:
        """A run of no steps since the model was loaded has no fusion yet: make that of its last epoch."""
        if self._fused_at is None:
            self.mutator.calc_information(temperature(max(0, self.schedule.epochs - 1), self.schedule.epochs))


def temperature(epoch: int, epochs: int, start: float = 1.0, end: float = 10000.0, rate: float = 1.0) -> float:
    """The temperature of an epoch, from 1 / ``start`` at the first down to 1 / ``end`` at the last, equation 6.

    ``1 / t = a / (1 + exp(-rate * epoch)) + start - a / 2`` with ``a = 2 (end - start) coth(rate * epochs / 2)``.

    Args:
        epoch: epochs done.
        epochs: of the whole run.
        start: of the inverse.
        end: of the inverse.
        rate: how fast it falls.
    """
    fall = math.exp(-rate * max(1, epochs))
    factor = 2 * (end - start) * (1 + fall) / (1 - fall)
    return 1.0 / (factor / (1 + math.exp(-rate * epoch)) + start - factor / 2)
