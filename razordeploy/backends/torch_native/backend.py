"""The backend's four functions and its YAML."""

from __future__ import annotations

from razordeploy.backends.base import Backend
from razordeploy.backends.torch_native.engine import load
from razordeploy.backends.torch_native.exporter import export
from razordeploy.backends.torch_native.quantizer import plan, spec

BACKEND = Backend(spec=spec(), plan=plan, export=export, load=load, needs_onnx=False)
