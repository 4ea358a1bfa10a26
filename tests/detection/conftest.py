"""Detectors need an environment of their own: mmcv's operators are compiled for it."""

from __future__ import annotations

import pytest

from razordeploy.lazy import available

REASON = "mmdet and mmcv's operators are not installed: bash tools/test.sh --detection makes their environment"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if "tests/detection/" in item.nodeid]
    there = available("mmdet") and available("mmcv._ext")
    for item in here:
        # What OpenMMLab's packages warn of is nothing that is tested here.
        item.add_marker(pytest.mark.filterwarnings("ignore"))
        if not there:
            item.add_marker(pytest.mark.skip(reason=REASON))
