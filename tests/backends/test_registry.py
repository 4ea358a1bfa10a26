"""Finding backends, our own and those of other packages, and what is said of one that is missing or broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from razordeploy.backends import registry
from razordeploy.backends.base import Backend
from razordeploy.backends.registry import BUILT_IN, backend_names, check_names, find_backend, missing_modules
from razordeploy.config.backend_spec import BackendSpec
from razordeploy.errors import BackendError, MissingDependency, RazorDeployError, UsageError

WORKING = """
from razordeploy.backends.base import Backend
from razordeploy.config.backend_spec import BackendSpec
BACKEND = Backend(
    spec=BackendSpec(name="fancy", summary="made up", extra="fancy", requires={requires}),
    plan=print, export=print, load=print, needs_onnx=False,
)
"""


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """``plug_in(source)`` installs a package ``fancy-engine`` that registers the backend ``fancy``."""

    def install(source: str | None, target: str = "fancy_engine.razor:BACKEND") -> None:
        info = tmp_path / "fancy_engine-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fancy-engine\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[razordeploy.backends]\nfancy = {target}\n")
        if source is not None:
            (tmp_path / "fancy_engine").mkdir()
            (tmp_path / "fancy_engine" / "__init__.py").write_text("")
            (tmp_path / "fancy_engine" / "razor.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "fancy_engine"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in(name):
    try:
        backend = find_backend(name)
    except MissingDependency as error:
        pytest.skip(str(error))
    assert isinstance(backend, Backend)
    assert backend.name == name


def test_unknown_name():
    with pytest.raises(UsageError) as caught:
        find_backend("openvin")
    assert str(caught.value) == "unknown backend 'openvin'; did you mean 'openvino'?"
    with pytest.raises(UsageError, match="known: academic, onnxruntime, openvino, tensorrt, torch_native"):
        check_names(["openvino", "tpu"])


def test_missing_package(monkeypatch):
    monkeypatch.setattr(registry, "available", lambda name: name not in {"openvino", "onnxscript"})
    with pytest.raises(MissingDependency) as caught:
        find_backend("openvino")
    assert str(caught.value) == "backend 'openvino' needs openvino, onnxscript; pip install 'razordeploy[openvino]'"
    assert caught.value.exit_code == 3


def test_missing_program():
    spec = BackendSpec(name="x", summary="", extra="x", requires=("json",), programs=("no-such-program", "sh"))
    assert missing_modules(spec) == ["no-such-program"]


class TestOtherPackages:
    def test_works(self, plug_in):
        plug_in(WORKING.format(requires="()"))
        assert backend_names() == (*BUILT_IN, "fancy")
        assert find_backend("fancy").spec.summary == "made up"

    @pytest.mark.parametrize(
        ("source", "kind", "text"),
        [
            (
                "import fancy_runtime.core",
                MissingDependency,
                "backend 'fancy' of the package 'fancy-engine' needs 'fancy_runtime'; pip install fancy_runtime",
            ),
            (
                WORKING.format(requires="('fancy_runtime',)"),
                MissingDependency,
                "backend 'fancy' needs fancy_runtime; pip install 'razordeploy[fancy]'",
            ),
            (
                None,
                BackendError,
                "backend 'fancy' of the package 'fancy-engine' cannot be loaded: it has no module 'fancy_engine'; "
                "pip install --force-reinstall fancy-engine",
            ),
            (
                "raise OSError('libfancy.so: cannot open shared object file')",
                BackendError,
                "backend 'fancy' of the package 'fancy-engine' cannot be loaded: OSError: libfancy.so: cannot open "
                "shared object file",
            ),
            (
                "BACKEND = 3",
                BackendError,
                "backend 'fancy' of the package 'fancy-engine': "
                "expected a Backend at fancy_engine.razor:BACKEND, got int",
            ),
            (
                "OTHER = 3",
                BackendError,
                "backend 'fancy' of the package 'fancy-engine' cannot be loaded: AttributeError: module "
                "'fancy_engine.razor' has no attribute 'BACKEND'",
            ),
        ],
    )
    def test_broken(self, plug_in, source, kind, text):
        plug_in(source)
        with pytest.raises(RazorDeployError) as caught:
            find_backend("fancy")
        assert (type(caught.value), str(caught.value)) == (kind, text)

    def test_cannot_take_a_built_in_name(self, plug_in, tmp_path: Path):
        plug_in(WORKING.format(requires="()"))
        (tmp_path / "fancy_engine-1.0.dist-info" / "entry_points.txt").write_text(
            "[razordeploy.backends]\nacademic = fancy_engine.razor:BACKEND\n"
        )
        assert backend_names() == BUILT_IN
        assert find_backend("academic").name == "academic"
