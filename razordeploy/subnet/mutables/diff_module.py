"""Candidate operations weighted by learned architecture parameters."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.agree import agree
from razordeploy.subnet.mutables.module import Candidates, MutableModule, build_candidates, one_of


class DiffMutableModule(MutableModule):
    """Base of differentiable mutables; the architecture parameter (choices,) is the mutator's and is passed in."""

    def __init__(
        self,
        module_kwargs: Mapping[str, Any] | None = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(module_kwargs, alias, init_cfg)
        # In a tuple, so that it is no parameter of the supernet's own: the weights' optimizer must not hold it.
        self._forward_args: tuple[nn.Parameter | None] = (None,)

    def set_forward_args(self, arch_param: nn.Parameter | None) -> None:
        """Use ``arch_param`` whenever ``forward`` is called without one."""
        self._forward_args = (arch_param,)

    def forward(self, x: Any, arch_param: Tensor | None = None) -> Any:
        """Run the fixed choice, else the candidates weighted by ``arch_param`` or the one set before."""
        if self.is_fixed:
            return self.forward_fixed(x)
        return self.forward_arch_param(x, self._forward_args[0] if arch_param is None else arch_param)

    def build_arch_param(self) -> nn.Parameter:
        """A new architecture parameter (choices,): small normal noise, as in DARTS."""
        return nn.Parameter(torch.randn(self.num_choices) * 1e-3)

    def compute_arch_probs(self, arch_param: Tensor) -> Tensor:
        """Weights of the candidates: softmax of ``arch_param``."""
        return functional.softmax(arch_param, -1)

    def forward_fixed(self, x: Any) -> Any:
        """Run what was fixed."""
        raise NotImplementedError

    def forward_all(self, x: Any) -> Any:
        """The sum of all candidates' outputs."""
        raise NotImplementedError

    def forward_arch_param(self, x: Any, arch_param: Tensor | None) -> Any:
        """The sum of the candidates' outputs weighted by ``compute_arch_probs``."""
        raise NotImplementedError

    def _check_arch_param(self, arch_param: Tensor) -> None:
        if arch_param.shape != (self.num_choices,):
            raise ModelError(
                f"mutable '{self.name}': expected an architecture parameter of shape ({self.num_choices},), "
                f"got {tuple(arch_param.shape)}"
            )

    def _weighted(self, arch_param: Tensor, outputs: Sequence[Any]) -> Any:
        """Add up ``outputs()`` weighted; what has weight zero, as in a hard Gumbel sample, is not run."""
        probs = self.compute_arch_probs(arch_param)
        return sum(prob * run() for prob, run in zip(probs, outputs, strict=True) if prob > 0)


class DiffMutableOP(DiffMutableModule):
    """A softmax mixture of operations (DARTS, Liu et al. 2019, arXiv 1806.09055, equation 2).

    Args:
        candidates: modules or configs by name.
        fix_threshold: ``settled`` names the candidate whose probability reaches this.
        module_kwargs: keywords that every config gets in addition.
        alias: as of every mutable.
        init_cfg: as of every mutable.
        candidate_ops: another name for ``candidates``.
    """

    def __init__(
        self,
        candidates: Candidates | None = None,
        fix_threshold: float = 1.0,
        module_kwargs: Mapping[str, Any] | None = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
        candidate_ops: Candidates | None = None,
    ) -> None:
        super().__init__(module_kwargs, alias, init_cfg)
        if not 0.0 < fix_threshold <= 1.0:
            raise ModelError(f"expected a fix_threshold in (0, 1], got {fix_threshold}")
        self.fix_threshold = fix_threshold
        self._candidates = build_candidates(one_of(candidates, candidate_ops), self.module_kwargs)

    @property
    def choices(self) -> list[str]:
        """Names of the candidates; of those that are left once fixed."""
        return list(self._candidates)

    @property
    def current_choice(self) -> Any:
        """Name or names of the candidates in use; None: all."""
        return self._chosen if self.is_fixed else self._current_choice

    @current_choice.setter
    def current_choice(self, choice: str | Sequence[str] | None) -> None:
        if choice is not None:
            self._names(choice)
        self._current_choice = choice

    def forward_fixed(self, x: Any) -> Any:
        """The sum over the operations that were fixed, usually one."""
        return sum(operation(x) for operation in self._candidates.values())

    def forward_all(self, x: Any) -> Any:
        """The sum of all candidates' outputs."""
        return sum(operation(x) for operation in self._candidates.values())

    def forward_arch_param(self, x: Any, arch_param: Tensor | None) -> Any:
        """The mixture; without an architecture parameter the plain sum."""
        if arch_param is None:
            return self.forward_all(x)
        self._check_arch_param(arch_param)
        return self._weighted(arch_param, [lambda run=operation: run(x) for operation in self._candidates.values()])

    def sample_choice(self, arch_param: Tensor | None = None) -> str:
        """The most probable candidate; without an architecture parameter a random one."""
        if arch_param is None:
            return random.choice(self.choices)
        self._check_arch_param(arch_param)
        return self.choices[int(arch_param.argmax())]

    def settled(self, arch_param: Tensor) -> str | None:
        """The candidate whose probability is at least ``fix_threshold``; None while there is none."""
        probs = functional.softmax(arch_param.detach(), -1)
        best = int(probs.argmax())
        return self.choices[best] if float(probs[best]) >= self.fix_threshold else None

    def fix_chosen(self, chosen: str | Sequence[str]) -> None:
        """Keep the candidates named, one or several, and drop the others."""
        self._refuse_second_fix()
        names = self._names(chosen)
        for name in self.choices:
            if name not in names:
                self._candidates.pop(name)
        self._chosen = chosen
        self.is_fixed = True

    def _names(self, chosen: str | Sequence[str]) -> list[str]:
        names = [chosen] if isinstance(chosen, str) else list(chosen)
        if not names:
            raise ModelError(f"mutable '{self.name}': expected at least one of {self.choices}, got none")
        for name in names:
            self._check_choice(name)
        return names

    def export_chosen(self) -> Any:
        """Name or names of the current choice.

        Raises:
            ModelError: nothing is chosen.
        """
        if self.current_choice is None:
            raise ModelError(f"mutable '{self.name}' has no current choice to export", hint="call set_choices() first")
        return self.current_choice


class OneHotMutableOP(DiffMutableOP):
    """One operation at a time, drawn from the softmax of the architecture parameter (DSNAS, arXiv 2002.09128).

    Every forward pass draws a one-hot ``arch_weights`` (choices,) that requires a gradient, on rank 0 for all ranks.
    Only the operation drawn is run; the gradient that arrives at its weight is the score of equation 10. With
    ``greedy`` the most probable operation is drawn.
    """

    arch_weights: Tensor | None = None
    greedy: bool = False

    def sample_weights(self, arch_param: Tensor, probs: Tensor, random_choice: bool = False) -> Tensor:
        """Draw ``arch_weights`` by ``probs`` (choices,), or uniformly, and return them."""

        def draw() -> int:
            if self.greedy:
                return int(probs.argmax())
            weights = torch.ones_like(probs) if random_choice else probs
            return int(torch.multinomial(weights.detach().float(), 1))

        weights = torch.zeros_like(arch_param.detach())
        weights[agree(draw)] = 1.0
        self.arch_weights = weights.requires_grad_()
        return weights

    def forward_arch_param(self, x: Any, arch_param: Tensor | None) -> Any:
        """The output of the operation drawn, times its weight of one; without a parameter the plain sum."""
        if arch_param is None:
            return self.forward_all(x)
        self._check_arch_param(arch_param)
        weights = self.sample_weights(arch_param, self.compute_arch_probs(arch_param))
        drawn = int(weights.argmax())
        return weights[drawn] * self._candidates[self.choices[drawn]](x)
