"""What a pruning run leaves behind: weights, and the files that say which channels of them stay."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import nn

from razordeploy.compress.algorithm.plain import as_plain
from razordeploy.compress.pruning.algorithms.base import PruningAlgorithm
from razordeploy.compress.pruning.clear import clear_removed
from razordeploy.subnet.files import write_mapping
from razordeploy.subnet.fix import export_fix_subnet
from razordeploy.subnet.static import make_plain
from razordeploy.train.runner import save_state_dict

SUBNET = "fix_subnet.yaml"
SUBNET_WEIGHTS = "fix_subnet_weight.pth"


def write_result(algorithm: PruningAlgorithm, checkpoint: Path) -> None:
    """Write ``checkpoint``, weights of the unpruned architecture, and beside it what is chosen of it.

    ``fix_subnet.yaml`` is the structure and ``fix_subnet_weight.pth`` the weights of the sliced model. Slicing the
    checkpoint by the structure gives the sliced model again: weights of removed channels are zero, and fused filters
    stand in the place of the kept ones.

    Args:
        algorithm: at the structure that is written.
        checkpoint: where to.
    """
    subnet, static = sliced(algorithm)
    write_mapping(checkpoint.with_name(SUBNET), subnet)
    save_state_dict(static, checkpoint.with_name(SUBNET_WEIGHTS))
    save_state_dict(full_width(algorithm), checkpoint)


def sliced(algorithm: PruningAlgorithm) -> tuple[dict[str, Any], nn.Module]:
    """The structure of the current choice, as a subnet file holds it, and its plain model."""
    subnet, static = export_fix_subnet(algorithm, "mutator", slice_weight=True)
    assert static is not None
    return subnet, as_plain(static)


def full_width(algorithm: PruningAlgorithm) -> nn.Module:
    """A plain copy of the architecture, of full width, that slices to the current choice."""
    architecture, mutator = copy.deepcopy((algorithm.architecture, algorithm.mutator))
    plain = make_plain(architecture)
    clear_removed(mutator, every=True)
    return as_plain(plain)
