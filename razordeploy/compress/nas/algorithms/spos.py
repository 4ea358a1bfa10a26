"""Single-path one-shot training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from razordeploy.compress.algorithm.base import Losses
from razordeploy.compress.nas.algorithms.base import SupernetAlgorithm


class SPOS(SupernetAlgorithm):
    """Trains one subnet a step, drawn uniformly (Single Path One-Shot, Guo et al. 2020, arXiv 1904.00420, equation 7).

    On a detector this is DetNAS (arXiv 1903.10979). Takes the arguments of ``SupernetAlgorithm``.
    """

    sampler: Callable[[], Mapping[str, Any]] | None = None
    """Draws the subnet of a step; None: the mutator does, uniformly."""

    def loss(self, inputs: Tensor, data_samples: Any = None) -> Losses:
        """The losses of a random subnet, the same one on every process."""
        self.mutator.set_choices(self.mutator.sample_choices() if self.sampler is None else self.sampler())
        return super().loss(inputs, data_samples)


class Autoformer(SPOS):
    """Trains one subnet a step of a supernet with entangled weights (AutoFormer, arXiv 2107.00651, section 3.2).

    Takes the arguments of ``SupernetAlgorithm``; the supernet is an ``AutoformerBackbone`` with a head.
    """
