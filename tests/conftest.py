"""What RAZORDEPLOY_REQUIRE names has to be there: its tests may not be skipped for want of it."""

from __future__ import annotations

import os

import pytest

from razordeploy.backends.registry import BUILT_IN, find_backend
from razordeploy.errors import MissingDependency
from razordeploy.lazy import available
from tests.report.chromium import find_chromium


def pytest_configure() -> None:
    for name in filter(None, os.environ.get("RAZORDEPLOY_REQUIRE", "").split(",")):
        if name in BUILT_IN:
            try:
                lacking = find_backend(name).absent()
            except MissingDependency as missing:
                lacking = missing
            if lacking is not None:
                raise pytest.UsageError(f"RAZORDEPLOY_REQUIRE names '{name}': {lacking}")
        elif name == "chromium":
            if find_chromium() is None:
                raise pytest.UsageError("RAZORDEPLOY_REQUIRE names 'chromium': no such program on the PATH")
        elif not available(name):
            raise pytest.UsageError(f"RAZORDEPLOY_REQUIRE names '{name}', which is not installed")
