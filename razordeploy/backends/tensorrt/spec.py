"""The backend's numbers, from its YAML."""

from __future__ import annotations

from razordeploy.config.backend_spec import load_backend_spec
from razordeploy.config.paths import backend_configs_dir

SPEC = load_backend_spec(backend_configs_dir() / "tensorrt.yaml")
