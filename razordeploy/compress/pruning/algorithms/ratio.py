"""One ratio for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from razordeploy.compress.pruning.algorithms.ite_prune import ItePruneAlgorithm
from razordeploy.errors import RecipeError


class RatioPruner(ItePruneAlgorithm):
    """Keeps the same share of every unit, by the L1 norm of its filters, from the first iteration on.

    A share r leaves about r**2 of the parameters of layers between two units.

    Args:
        architecture: the model to be pruned.
        ratio: share of the channels that is kept, above 0 and up to 1.
        except_start_keys: units whose name starts with one of these keep all.
        divisor: what a number of channels has to be a multiple of.
        mutator: config of a channel mutator; None: L1 units.
        data_preprocessor: of the batches; None: the architecture's own.
        init_cfg: see ``PruningAlgorithm``.
    """

    unit_type: ClassVar[str | None] = "L1MutableChannelUnit"

    def __init__(
        self,
        architecture: Any,
        ratio: float = 0.5,
        except_start_keys: Sequence[str] = (),
        divisor: int = 1,
        mutator: Any = None,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
            raise RecipeError(f"RatioPruner: expected a ratio above 0 and up to 1, got {ratio!r}")
        config = dict(mutator or {}) if isinstance(mutator, Mapping) or mutator is None else mutator
        if divisor != 1 and isinstance(config, dict):
            unit = dict(config.get("channel_unit_cfg") or {})
            unit["default_args"] = {**unit.get("default_args", {}), "divisor": divisor}
            config["channel_unit_cfg"] = unit
        super().__init__(architecture, config, data_preprocessor, target_pruning_ratio=float(ratio), init_cfg=init_cfg)
        for name in self.target:
            if name.startswith(tuple(except_start_keys)):
                self.target[name] = self.mutator.unit(name).num_channels
