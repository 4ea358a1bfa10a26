"""Each test has mmengine's logger to itself: the one before may have closed the file of its own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def own_logger():
    logging = pytest.importorskip("mmengine.logging", reason="needs mmengine.logging")
    yield
    for handler in [h for log in logging.MMLogger._instance_dict.values() for h in log.handlers]:
        handler.close()
    logging.MMLogger._instance_dict.clear()
