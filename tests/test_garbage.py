"""The search for reference cycles is off in the block alone, and stays off for who had switched it off."""

from __future__ import annotations

import gc

import pytest

from razordeploy.garbage import collection_paused


def test_collection_is_off_in_the_block_and_on_behind_it():
    assert gc.isenabled()
    with collection_paused(), collection_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_in_the_block_leaves_it_on():
    with pytest.raises(ValueError, match="inside"), collection_paused():
        raise ValueError("inside")
    assert gc.isenabled()


def test_who_had_it_off_keeps_it_off():
    gc.disable()
    try:
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
