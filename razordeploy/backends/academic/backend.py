"""The backend's four functions and its YAML."""

from __future__ import annotations

from razordeploy.backends.academic.engine import load
from razordeploy.backends.academic.exporter import export
from razordeploy.backends.academic.quantizer import plan, spec
from razordeploy.backends.base import Backend

BACKEND = Backend(spec=spec(), plan=plan, export=export, load=load, simulated_only=True, needs_onnx=False)
