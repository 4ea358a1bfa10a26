"""Plan a simulation: inputs and weights of everything that multiplies."""

from __future__ import annotations

from functools import cache

from razordeploy.capture.graph import CapturedModel
from razordeploy.config.backend_spec import BackendSpec, load_backend_spec
from razordeploy.config.paths import backend_configs_dir
from razordeploy.quantization.placement import Settings, place
from razordeploy.quantization.plan import QuantPlan


@cache
def spec() -> BackendSpec:
    """The backend's YAML."""
    return load_backend_spec(backend_configs_dir() / "academic.yaml")


def plan(captured: CapturedModel, settings: Settings) -> QuantPlan:
    """Plan the captured graph; every operation may ask for a grid of its own."""
    return place(captured, spec(), settings)
