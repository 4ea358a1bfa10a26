"""The backend's functions under its name."""

from __future__ import annotations

from razordeploy.backends.base import Backend
from razordeploy.backends.tensorrt.command import build_line
from razordeploy.backends.tensorrt.engine import load
from razordeploy.backends.tensorrt.exporter import convert, export
from razordeploy.backends.tensorrt.quantizer import plan
from razordeploy.backends.tensorrt.runtime import absent
from razordeploy.backends.tensorrt.spec import SPEC

BACKEND = Backend(spec=SPEC, plan=plan, export=export, load=load, convert=convert, absent=absent, build_line=build_line)
