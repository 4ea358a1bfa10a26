"""Which operations this backend quantizes, and where the pairs go."""

from __future__ import annotations

from razordeploy.backends.openvino.spec import SPEC
from razordeploy.capture.graph import CapturedModel
from razordeploy.quantization.placement import Settings, place
from razordeploy.quantization.plan import QuantPlan


def plan(captured: CapturedModel, settings: Settings) -> QuantPlan:
    """Place by the YAML's rules alone."""
    return place(captured, SPEC, settings)
