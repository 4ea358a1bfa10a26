"""The pruning algorithms that a recipe may name."""

from __future__ import annotations

from razordeploy.compress.pruning.algorithms.autoslim import AutoSlim
from razordeploy.compress.pruning.algorithms.base import PruningAlgorithm
from razordeploy.compress.pruning.algorithms.dcff import DCFF
from razordeploy.compress.pruning.algorithms.dmcp import DMCP
from razordeploy.compress.pruning.algorithms.group_fisher import GroupFisherAlgorithm
from razordeploy.compress.pruning.algorithms.ite_prune import ItePruneAlgorithm
from razordeploy.compress.pruning.algorithms.ratio import RatioPruner
from razordeploy.compress.pruning.algorithms.slimmable import SlimmableNetwork

ALGORITHMS: dict[str, type[PruningAlgorithm]] = {
    "AutoSlim": AutoSlim,
    "DCFF": DCFF,
    "DMCP": DMCP,
    "GroupFisherAlgorithm": GroupFisherAlgorithm,
    "ItePruneAlgorithm": ItePruneAlgorithm,
    "RatioPruner": RatioPruner,
    "SlimmableNetwork": SlimmableNetwork,
}
