"""Values that carry nothing."""

from __future__ import annotations

from razordeploy.capture.graph import CapturedModel
from razordeploy.quantization.plan import QuantPlan
from razordeploy.quantization.statistics import Statistics


def dead_values(captured: CapturedModel, plan: QuantPlan, statistics: Statistics) -> list[str]:
    """A line for the user about values that were 0 for every calibration sample: their grid means nothing.

    Inputs are left out, as reading them says it.
    """
    dead, inputs = [], {node.name for node in captured.placeholders()}
    for point in plan.points:
        if point.kind == "activation" and point.observed and point.node not in inputs:
            low, high = statistics.observers[(point.node, point.observer)].range(point.scheme)
            if not bool(low.any() | high.any()):
                dead.append(point.node)
    if not dead:
        return []
    shown = ", ".join(f"'{name}'" for name in dead[:3]) + (" ..." if len(dead) > 3 else "")
    return [
        f"{len(dead)} values are 0 for every calibration sample (dead ReLUs?): {shown}; what follows them gives "
        "and learns nothing, and their grids are arbitrary: check the checkpoint and the input's normalisation"
    ]
