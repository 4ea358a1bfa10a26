"""Candidate operations of which a single-path supernet runs one at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.module import Candidates, MutableModule, build_candidates, one_of, parameter_count


class OneShotMutableModule(MutableModule):
    """Base of one-shot module mutables: fixed, or the current choice, or all candidates where nothing is chosen."""

    def forward(self, x: Any) -> Any:
        """Run the fixed operation, else the current choice, else all of them."""
        if self.is_fixed:
            return self.forward_fixed(x)
        if self.current_choice is None:
            return self.forward_all(x)
        return self.forward_choice(x, choice=self.current_choice)

    def forward_fixed(self, x: Any) -> Any:
        """Run the operation that was fixed."""
        raise NotImplementedError

    def forward_all(self, x: Any) -> Any:
        """Run every candidate and add up their outputs, as counting FLOPs of the whole supernet does."""
        raise NotImplementedError

    def forward_choice(self, x: Any, choice: Any) -> Any:
        """Run ``choice``."""
        raise NotImplementedError


class OneShotMutableOP(OneShotMutableModule):
    """One of several operations (SPOS, Guo et al. 2020, arXiv 1904.00420).

    Args:
        candidates: modules or configs by name.
        module_kwargs: keywords that every config gets in addition; the configs themselves are left as they are.
        alias: as of every mutable.
        init_cfg: as of every mutable.
        candidate_ops: another name for ``candidates``.

    Raises:
        ModelError: no candidates.
        RecipeError: an unknown component in a config.
    """

    def __init__(
        self,
        candidates: Candidates | None = None,
        module_kwargs: Mapping[str, Any] | None = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
        candidate_ops: Candidates | None = None,
    ) -> None:
        super().__init__(module_kwargs, alias, init_cfg)
        self._candidates = build_candidates(one_of(candidates, candidate_ops), self.module_kwargs)

    @property
    def choices(self) -> list[str]:
        """Names of the candidates; of the one that is left once fixed."""
        return list(self._candidates)

    def forward_fixed(self, x: Any) -> Any:
        """Run the operation that was fixed."""
        return self._candidates[self._chosen](x)

    def forward_choice(self, x: Any, choice: str) -> Any:
        """Run the candidate named ``choice``."""
        self._check_choice(choice)
        return self._candidates[choice](x)

    def forward_all(self, x: Any) -> Any:
        """The sum of all candidates' outputs."""
        return sum(operation(x) for operation in self._candidates.values())

    def fix_chosen(self, chosen: str) -> None:
        """Keep the candidate named ``chosen`` and drop the others."""
        self._refuse_second_fix()
        self._check_choice(chosen)
        for name in self.choices:
            if name != chosen:
                self._candidates.pop(name)
        self._chosen = chosen
        self.is_fixed = True

    def export_chosen(self) -> str:
        """Name of the current choice.

        Raises:
            ModelError: nothing is chosen.
        """
        if self.current_choice is None:
            raise ModelError(f"mutable '{self.name}' has no current choice to export", hint="call set_choices() first")
        return str(self.current_choice)

    def sample_choice(self) -> str:
        """Each candidate with the same probability."""
        return random.choice(self.choices)

    @property
    def max_choice(self) -> str:
        """The candidate with the most parameters; of equals the first."""
        return max(self.choices, key=lambda name: parameter_count(self._candidates[name]))

    @property
    def min_choice(self) -> str:
        """The candidate with the fewest parameters; of equals the first."""
        return min(self.choices, key=lambda name: parameter_count(self._candidates[name]))


class OneShotProbMutableOP(OneShotMutableOP):
    """One of several operations, sampled by given probabilities.

    Args:
        candidates: modules or configs by name.
        choice_probs: one probability a candidate; they sum to 1.
        module_kwargs: as of ``OneShotMutableOP``.
        alias: as of every mutable.
        init_cfg: as of every mutable.
        candidate_ops: another name for ``candidates``.

    Raises:
        ModelError: as many probabilities as candidates are not given, one is negative, or the sum is not 1.
    """

    def __init__(
        self,
        candidates: Candidates | None = None,
        choice_probs: Sequence[float] = (),
        module_kwargs: Mapping[str, Any] | None = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
        candidate_ops: Candidates | None = None,
    ) -> None:
        super().__init__(candidates, module_kwargs, alias, init_cfg, candidate_ops)
        probs = [float(p) for p in choice_probs]
        if len(probs) != self.num_choices or min(probs) < 0 or not math.isclose(sum(probs), 1.0, abs_tol=1e-6):
            raise ModelError(
                f"mutable '{self.name}': expected {self.num_choices} choice_probs of at least 0 that sum to 1, "
                f"got {probs}"
            )
        self.choice_probs = probs

    def sample_choice(self) -> str:
        """A candidate, by ``choice_probs``."""
        if self.is_fixed:
            return str(self._chosen)
        return random.choices(self.choices, weights=self.choice_probs, k=1)[0]
