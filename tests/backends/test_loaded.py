"""Engines from artifacts that are not what they should be; what a good one does is in test_api."""

from __future__ import annotations

import numpy as np
import pytest

from razordeploy.artifact import Artifact, TensorSpec, staged_directory, write_artifact
from razordeploy.backends.loaded import Engine, engine_folders, load_engine, only_engine
from razordeploy.errors import UsageError


@pytest.fixture
def write(tmp_path):
    """``write(name, params) -> Artifact`` with one small file of role ``engine``."""

    def make(name="one", params=None, role="engine", shape=(None, 3), dtype="float32", kind="engine"):
        with staged_directory(tmp_path / name) as staged:
            (staged / "model.bin").write_text("x")
            inputs = [TensorSpec(name="x", shape=shape, dtype=dtype)]
            write_artifact(
                staged, kind=kind, stage="ptq", files={role: "model.bin"}, inputs=inputs, params=params or {}
            )
        return Artifact.load(tmp_path / name)

    return make


def test_no_backend(write):
    with pytest.raises(UsageError, match="expected an engine at .*one, found a 'float' artifact of stage 'ptq'"):
        load_engine(write(kind="float"))


def test_no_engine_file(write):
    with pytest.raises(UsageError, match="has no engine: backend 'openvino' only simulates"):
        load_engine(write(params={"backend": "openvino"}, role="float"))


def test_backend_that_is_gone(write):
    with pytest.raises(UsageError, match="unknown backend 'openvinoo'; did you mean 'openvino'?"):
        load_engine(write(params={"backend": "openvinoo"}))


def test_folders(write, tmp_path):
    assert engine_folders(tmp_path) == []
    one, two = write("one"), write("two")
    assert engine_folders(tmp_path) == [one.path, two.path]
    assert engine_folders(one.path) == [one.path]
    assert only_engine(one.path) == one.path
    with pytest.raises(UsageError, match=r"holds 2 engines; give one: .*one, .*two"):
        only_engine(tmp_path)
    assert engine_folders(tmp_path / "three") == []


class TestRandomInputs:
    @pytest.fixture
    def engine(self, write):
        def build(**options):
            engine = Engine.__new__(Engine)
            engine.artifact = write(params={"backend": "openvino"}, **options)
            return engine

        return build

    def test_float(self, engine):
        (x,) = engine(shape=(None, 3, 4)).random_inputs(5, seed=1)
        assert (x.shape, x.dtype) == ((5, 3, 4), np.float32)
        assert abs(x.mean()) < 1
        assert 0.5 < x.std() < 1.5
        again, other = engine(shape=(None, 3, 4)).random_inputs(5, seed=1), engine(shape=(None, 3, 4)).random_inputs(5)
        assert np.array_equal(again[0], x)
        assert not np.array_equal(other[0], x)

    @pytest.mark.parametrize("dtype", ["int64", "int32", "bool", "uint8"])
    def test_integers(self, engine, dtype):
        (x,) = engine(dtype=dtype).random_inputs(50)
        assert x.dtype == dtype
        assert set(np.unique(x.astype(int))) == {0, 1}

    def test_fixed_batch(self, engine):
        assert engine(shape=(2, 3)).random_inputs(2)[0].shape == (2, 3)
        with pytest.raises(UsageError, match="was made for batch 2, asked for 1"):
            engine(shape=(2, 3)).random_inputs(1)
