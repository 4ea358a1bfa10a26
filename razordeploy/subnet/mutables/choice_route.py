"""Edges of which some are kept."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.agree import agree
from razordeploy.subnet.mutables.diff_module import DiffMutableModule


class DiffChoiceRoute(DiffMutableModule):
    """The inputs of a node in a cell, each through its edge (DARTS, arXiv 1806.09055, section 2.4).

    Args:
        edges: modules by name, one for each input, in the order of the inputs.
        num_chosen: edges that are kept when the route is fixed.
        with_arch_param: weigh the edges by the architecture parameter; else add them up.
        alias: as of every mutable.
        init_cfg: as of every mutable.
    """

    def __init__(
        self,
        edges: nn.ModuleDict,
        num_chosen: int = 2,
        with_arch_param: bool = False,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(alias=alias, init_cfg=init_cfg)
        if len(edges) < 1:
            raise ModelError("expected at least one edge, got none")
        self._edges = edges if isinstance(edges, nn.ModuleDict) else nn.ModuleDict(edges)
        self._all_edges = list(self._edges)
        self.num_chosen = min(num_chosen, len(self._all_edges))
        self._with_arch_param = with_arch_param

    @property
    def choices(self) -> list[str]:
        """Names of the edges; of those that are left once fixed."""
        return list(self._edges)

    @property
    def current_choice(self) -> Any:
        """Names of the edges in use; None: all."""
        return self._chosen if self.is_fixed else self._current_choice

    @current_choice.setter
    def current_choice(self, choice: Sequence[str] | str | None) -> None:
        self._current_choice = None if choice is None else self._names(choice)

    def forward_fixed(self, x: Sequence[Tensor]) -> Any:
        """The sum over the edges that were fixed; ``x`` has one input for each edge there was."""
        self._check_inputs(x)
        return sum(
            self._edges[name](value) for name, value in zip(self._all_edges, x, strict=True) if name in self._edges
        )

    def forward_all(self, x: Sequence[Tensor]) -> Any:
        """The sum over all edges."""
        self._check_inputs(x)
        return sum(edge(value) for edge, value in zip(self._edges.values(), x, strict=True))

    def forward_arch_param(self, x: Sequence[Tensor], arch_param: Tensor | None) -> Any:
        """The sum over all edges, weighted where ``with_arch_param`` is set and a parameter is given."""
        if arch_param is None or not self._with_arch_param:
            return self.forward_all(x)
        self._check_inputs(x)
        self._check_arch_param(arch_param)
        edges = zip(self._edges.values(), x, strict=True)
        return self._weighted(arch_param, [lambda run=edge, value=value: run(value) for edge, value in edges])

    def sample_choice(self, arch_param: Tensor | None = None) -> list[str]:
        """The ``num_chosen`` edges of the largest architecture parameters, largest first; without one at random."""
        if arch_param is None:
            return random.sample(self.choices, self.num_chosen)
        self._check_arch_param(arch_param)
        order = arch_param.detach().argsort(descending=True, stable=True)[: self.num_chosen]
        return [self.choices[int(index)] for index in order]

    def fix_chosen(self, chosen: Sequence[str] | str) -> None:
        """Keep the edges named and drop the others."""
        self._refuse_second_fix()
        names = self._names(chosen)
        for name in self.choices:
            if name not in names:
                self._edges.pop(name)
        self._chosen = names
        self.is_fixed = True

    def left_out(self, chosen: Sequence[str] | str) -> list[nn.Module]:
        """The edges that are dropped, whose operations need no choice."""
        names = self._names(chosen)
        return [edge for name, edge in self._edges.items() if name not in names]

    def export_chosen(self) -> list[str]:
        """Names of the edges in use.

        Raises:
            ModelError: nothing is chosen.
        """
        if self.current_choice is None:
            raise ModelError(f"mutable '{self.name}' has no current choice to export", hint="call set_choices() first")
        return list(self.current_choice)

    def _names(self, chosen: Sequence[str] | str) -> list[str]:
        names = [chosen] if isinstance(chosen, str) else list(chosen)
        if not names:
            raise ModelError(f"mutable '{self.name}': expected at least one of {self.choices}, got none")
        for name in names:
            self._check_choice(name)
        return names

    def _check_inputs(self, x: Sequence[Tensor]) -> None:
        if len(x) != len(self._all_edges):
            raise ModelError(
                f"mutable '{self.name}': expected {len(self._all_edges)} inputs, one an edge, got {len(x)}"
            )


class GumbelChoiceRoute(DiffChoiceRoute):
    """A route whose weights are a Gumbel softmax sample of the architecture parameter.

    Args:
        edges: as of ``DiffChoiceRoute``.
        num_chosen: as of ``DiffChoiceRoute``.
        tau: temperature, above 0.
        hard: one-hot weights that have the gradient of the soft ones.
        with_arch_param: as of ``DiffChoiceRoute``.
        alias: as of every mutable.
        init_cfg: as of every mutable.
    """

    def __init__(
        self,
        edges: nn.ModuleDict,
        num_chosen: int = 2,
        tau: float = 1.0,
        hard: bool = True,
        with_arch_param: bool = False,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(edges, num_chosen, with_arch_param, alias, init_cfg)
        self.hard = hard
        self.set_temperature(tau)

    def set_temperature(self, tau: float) -> None:
        """Use temperature ``tau`` from now on."""
        if not tau > 0:
            raise ModelError(f"mutable '{self.name}': expected a temperature tau above 0, got {tau}")
        self.tau = tau

    def compute_arch_probs(self, arch_param: Tensor) -> Tensor:
        """A Gumbel softmax sample (choices,), drawn on rank 0 for all ranks (Jang et al., arXiv 1611.01144)."""
        shape = arch_param.shape
        noise = agree(lambda: -torch.empty(shape).exponential_().log()).to(arch_param)
        soft = functional.softmax((arch_param + noise) / self.tau, dim=-1)
        if not self.hard:
            return soft
        one_hot = functional.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)
        return one_hot - soft.detach() + soft
