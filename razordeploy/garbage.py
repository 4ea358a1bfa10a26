"""Python's search for reference cycles, put off while a graph is traced or translated."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Look for no reference cycles in the block, unless nobody did before.

    Tracing makes objects by the hundred thousand that all stay alive; looking through them again and again takes a
    tenth of the time. For blocks whose memory does not grow with the data.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
