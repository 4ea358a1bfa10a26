"""The command line starts without torch: each module is loaded by the verb that needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    *("torch", "torchao", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "openvino", "tensorrt", "nncf"),
    *(
        "mmengine",
        "mmcls",
        "mmcv",
        "mmpretrain",
        "sklearn",
        "matplotlib",
        "scipy",
        "cv2",
        "jinja2",
        "optuna",
        "ray",
        "submitit",
    ),
)
ENGINES = ("onnx", "onnx_ir", "onnxscript", "onnxruntime", "openvino", "tensorrt", "nncf", "mmcls", "mmpretrain")
VERBS = ("ptq", "qat", "train", "hpo", "evaluate", "benchmark", "compare", "backends", "doctor")


def _loaded(code: str, names: tuple[str, ...]) -> set[str]:
    """Which of ``names`` a fresh interpreter has imported after ``code``."""
    script = f"{code}\nimport sys\nprint('\\nLOADED', *({set(names)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    word, *found = done.stdout.splitlines()[-1].split()
    assert word == "LOADED"
    return set(found)


def _cli(*words: str) -> str:
    return (
        "from razordeploy.cli.main import main\n"
        f"try:\n    main({list(words)!r})\n"
        "except SystemExit as end:\n    assert not end.code, end.code"
    )


def test_the_measurement_sees_what_is_loaded():
    assert _loaded("import torch, jinja2", HEAVY) >= {"torch", "jinja2"}


def test_importing_the_package_loads_nothing_heavy():
    assert _loaded("import razordeploy; razordeploy.__version__; dir(razordeploy)", HEAVY) == set()


@pytest.mark.parametrize("words", [("--help",), *((verb, "--help") for verb in VERBS), ("backends",)], ids=" ".join)
def test_cheap_verbs_load_nothing_heavy(words):
    assert _loaded(_cli(*words), HEAVY) == set()


def test_the_core_loads_no_engine():
    core = ("api", "pipeline", "backends.registry", "backends.harness", "backends.loaded")
    code = "\n".join(f"import razordeploy.{module}" for module in core)
    assert _loaded(code, (*ENGINES, "mmengine", "torch")) == {"torch"}


def test_every_public_name_is_there():
    import razordeploy

    for name in razordeploy.__all__:
        assert getattr(razordeploy, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'ptqq'"):
        _ = razordeploy.ptqq
