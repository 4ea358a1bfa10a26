"""The backend's four functions under its name."""

from __future__ import annotations

from razordeploy.backends.base import Backend
from razordeploy.backends.openvino.engine import load
from razordeploy.backends.openvino.exporter import convert, export
from razordeploy.backends.openvino.profile import profile
from razordeploy.backends.openvino.quantizer import plan
from razordeploy.backends.openvino.spec import SPEC

BACKEND = Backend(spec=SPEC, plan=plan, export=export, load=load, convert=convert, profile=profile)
