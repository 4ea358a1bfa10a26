"""The backend's four functions under its name."""

from __future__ import annotations

from razordeploy.backends.base import Backend
from razordeploy.backends.onnxruntime.engine import load
from razordeploy.backends.onnxruntime.exporter import convert, export
from razordeploy.backends.onnxruntime.profile import profile
from razordeploy.backends.onnxruntime.quantizer import plan
from razordeploy.backends.onnxruntime.spec import SPEC

BACKEND = Backend(spec=SPEC, plan=plan, export=export, load=load, convert=convert, profile=profile)
