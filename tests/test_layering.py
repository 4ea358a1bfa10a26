"""The layers of ARCHITECTURE.md, import cycles, and engines that are imported before anybody asked for them."""

from __future__ import annotations

import ast
import fnmatch
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Lowest first; what shares a line shares a rank, and may not import each other.
LAYERS = (
    ("errors",),
    ("environment", "garbage", "lazy", "registry", "storage", "strict_json"),
    ("artifact", "workdir"),
    ("config",),
    ("executors",),
    ("capture", "data"),
    ("models", "subnet", "train"),
    ("assemble",),
    ("quantization",),
    ("backends", "compress"),
    ("job",),
    ("each_backend", "source", "validation"),
    ("deployment", "preparation", "recovery_float", "recovery_state"),
    ("recovery_goal",),
    ("cost_aware", "recovery", "repair"),
    ("analysis", "conversion", "pipeline", "sliced"),
    ("latency",),
    ("qat_pipeline",),
    ("report",),
    ("hpo",),
    ("api",),
    ("api_training",),
    ("integrations",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Package -> the files that may import it at module level; each of them is itself loaded on use only.
OPTIONAL = {
    "mmcls": (),
    "mmcv": (),
    "mmdeploy": (),
    "mmengine": (
        "registry.py",
        *("train/amp.py", "train/classifier.py", "train/config_runner.py", "train/hooks.py", "train/runner.py"),
        "train/processes.py",
        *("quantization/qat/loops.py", "quantization/qat/model.py", "quantization/qat/train.py"),
        *("compress/algorithm/*.py", "compress/*/hooks.py", "compress/*/loops.py"),
        *("compress/*/train.py", "compress/nas/algorithms/*.py", "compress/nas/supernets/classifier.py"),
        *("compress/nas/greedy_loop.py", "integrations/architecture_quant.py"),
    ),
    "mmpretrain": (),
    "nncf": (),
    "onnx": (),
    "onnx_ir": ("backends/*/exporter.py", "backends/*/rewrite.py", "backends/*/rules.py", "backends/onnx_passes/*.py"),
    "onnxruntime": (),
    "onnxscript": (),
    "openvino": (),
    "optuna": (),
    "PIL": (),
    "ray": (),
    "scipy": (),
    "sklearn": (),
    "submitit": (),
    "tensorrt": (),
    "timm": (),
    "torchao": (),
    "torchvision": (),
}
SHARED_BY_BACKENDS = "onnx_passes"
QAT = "razordeploy.quantization.qat."


@dataclass(frozen=True)
class Import:
    """One name that one line imports."""

    file: Path
    line: int
    target: str
    """Dotted name of the module, or of something in it."""
    on_load: bool
    """True: runs when the file is imported; False: inside a function, or for type checkers only."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def package_imports(root: Path) -> dict[str, list[Import]]:
    """Every import of ``root/razordeploy``, by the module that holds it."""
    found = {}
    for file in sorted((root / "razordeploy").rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        package = module if is_package else module.rpartition(".")[0]
        found[module] = _imports(file, package, ast.parse(file.read_text()), on_load=True)
    return found


def _imports(file: Path, package: str, node: ast.AST, *, on_load: bool) -> list[Import]:
    found = []
    for child in ast.iter_child_nodes(node):
        inside = on_load and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.Import):
            found += [Import(file, child.lineno, alias.name, on_load) for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - child.level]) if child.level else ""
            source = ".".join(part for part in (base, child.module) if part)
            found += [Import(file, child.lineno, f"{source}.{alias.name}", on_load) for alias in child.names]
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                found += _imports(file, package, ast.Module([part], []), on_load=False)
            for part in child.orelse:
                found += _imports(file, package, ast.Module([part], []), on_load=inside)
        else:
            found += _imports(file, package, child, on_load=inside)
    return found


def violations(root: Path) -> list[str]:
    """Everything that breaks a rule, as ``file:line: what``."""
    imports = package_imports(root)
    return sorted(
        _unknown_layers(root) + _upward(imports) + _across_backends(imports) + _cycles(imports) + _eager(root, imports)
    )


def _unknown_layers(root: Path) -> list[str]:
    children = {p.stem for p in (root / "razordeploy").iterdir() if p.suffix == ".py" or any(p.rglob("*.py"))}
    unknown = children - RANK.keys() - {"__init__"}
    return [f"razordeploy/{name}: belongs to no layer; give it one in LAYERS" for name in sorted(unknown)]


def _layer(module: str) -> str:
    return [*module.split("."), ""][1]


def _upward(imports: dict[str, list[Import]]) -> list[str]:
    found = []
    for module, lines in imports.items():
        own = _layer(module)
        for line in lines:
            other = _layer(line.target)
            if not line.target.startswith("razordeploy.") or other == own or other not in RANK:
                continue
            if not own:
                if line.on_load:
                    found.append(f"{line}: razordeploy itself imports '{other}' on load")
            elif RANK[other] >= RANK.get(own, len(LAYERS)):
                found.append(f"{line}: layer '{own}' imports '{other}', which is not below it")
    return found


def _across_backends(imports: dict[str, list[Import]]) -> list[str]:
    folders = {m.split(".")[2] for m in imports if m.startswith("razordeploy.backends.") and m.count(".") > 2}
    found = []
    for module, lines in imports.items():
        own = [*module.split("."), "", ""][2] if module.startswith("razordeploy.backends") else ""
        for line in lines:
            name = [*line.target.split("."), "", ""][2] if line.target.startswith("razordeploy.backends.") else ""
            if name in folders - {own, SHARED_BY_BACKENDS}:
                found.append(f"{line}: '{module}' imports backend '{name}'; backends are found by name only")
    return found


def _loaded_with(imports: dict[str, list[Import]], module: str) -> dict[str, Import]:
    """Modules of the package that importing ``module`` imports first, with the line that does."""
    found: dict[str, Import] = {}
    for line in imports[module]:
        if line.on_load and line.target.split(".")[0] == "razordeploy":
            target = line.target if line.target in imports else line.target.rpartition(".")[0]
            while target:
                if target in imports and not f"{module}.".startswith(f"{target}."):
                    found.setdefault(target, line)
                target = target.rpartition(".")[0]
    return found


def _cycles(imports: dict[str, list[Import]]) -> list[str]:
    edges = {module: _loaded_with(imports, module) for module in imports}
    found, done = [], set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            circle = (*path[path.index(module) :], module)
            found.append(f"{edges[path[-1]][module]}: import cycle {' -> '.join(circle)}")
        elif module not in done:
            for target in edges[module]:
                visit(target, (*path, module))
            done.add(module)

    for module in edges:
        visit(module, ())
    return found


def _eager(root: Path, imports: dict[str, list[Import]]) -> list[str]:
    """Optional packages imported on load where they may not be, or by way of a module that may."""
    optional = {
        module: [line for line in lines if line.on_load and _top(line) in OPTIONAL] for module, lines in imports.items()
    }
    found = []
    for module, lines in optional.items():
        for line in lines:
            file = line.file.relative_to(root / "razordeploy").as_posix()
            if not any(fnmatch.fnmatch(file, pattern) for pattern in OPTIONAL[_top(line)]):
                found.append(f"{line}: imports '{_top(line)}' on load; import it in the function that uses it")
        for reached in _closure(imports, module):
            if not _may_load(module, reached):
                found += [
                    f"{line}: '{module}' imports '{_top(line)}' on load by way of this line"
                    for line in optional[reached]
                ]
    return found


def _top(line: Import) -> str:
    return line.target.split(".")[0]


def _closure(imports: dict[str, list[Import]], module: str) -> set[str]:
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        for target in _loaded_with(imports, waiting.pop()):
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    return reached - {module}


def _may_load(module: str, reached: str) -> bool:
    """Tell whether ``module`` may load ``reached``, which imports an optional package."""
    if module in ("razordeploy.integrations.mmrazor", "razordeploy.integrations.architecture_quant"):
        # mmengine itself imports them, at the first look-up in a registry.
        return True
    if _layer(reached) == "train" or reached.startswith(QAT):
        if module in ("razordeploy.cli.qat", "razordeploy.cli.training") or module.startswith(QAT):
            return True
        return _layer(module) in ("train", "compress") or module == "razordeploy.cli.train"
    if _layer(reached) == "compress":
        return _layer(module) == "compress" or module == "razordeploy.cli.train"
    # The files in a backend's folder are imported once its packages are known to be there.
    folder = module.split(".")
    return folder[1:2] == ["backends"] and len(folder) > 3


def test_package_keeps_the_rules():
    assert violations(ROOT) == []


def test_every_allowance_is_used():
    used = {(line.file, _top(line)) for lines in package_imports(ROOT).values() for line in lines}
    for top, patterns in OPTIONAL.items():
        for pattern in patterns:
            files = (ROOT / "razordeploy").glob(pattern)
            assert any((file, top) in used for file in files), f"{pattern} does not import {top} any more"


BAD = {
    "upward": ({"config/a.py": "from razordeploy.pipeline import run", "pipeline.py": ""}, "config/a.py:1: layer"),
    "upward in a function": (
        {"config/a.py": "def f():\n    import razordeploy.cli.main", "cli/main.py": ""},
        "config/a.py:2: layer 'config' imports 'cli'",
    ),
    "upward for types": (
        {
            "data/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from razordeploy import api",
            "api.py": "",
        },
        "data/a.py:3: layer 'data' imports 'api'",
    ),
    "upward, relative": ({"config/a.py": "from ..quantization import b", "quantization/b.py": ""}, "config/a.py:1:"),
    "same rank": ({"capture/a.py": "from razordeploy.data import b", "data/b.py": ""}, "capture/a.py:1: layer"),
    "new layer": ({"extras.py": "import os"}, "razordeploy/extras: belongs to no layer"),
    "root": ({"__init__.py": "from razordeploy.api import ptq", "api.py": ""}, "razordeploy itself imports 'api'"),
    "cycle": (
        {"config/a.py": "import razordeploy.config.b", "config/b.py": "\nfrom razordeploy.config import a"},
        "import cycle razordeploy.config.a -> razordeploy.config.b -> razordeploy.config.a",
    ),
    "backends": (
        {"backends/openvino/a.py": "from razordeploy.backends.tensorrt import b", "backends/tensorrt/b.py": ""},
        "backends/openvino/a.py:1: 'razordeploy.backends.openvino.a' imports backend 'tensorrt'",
    ),
    "one backend in the harness": (
        {"backends/harness.py": "import razordeploy.backends.openvino.a", "backends/openvino/a.py": ""},
        "backends/harness.py:1: 'razordeploy.backends.harness' imports backend 'openvino'",
    ),
    "engine": ({"data/a.py": "\nimport onnxruntime as ort"}, "data/a.py:2: imports 'onnxruntime' on load"),
    "engine in a class": ({"data/a.py": "class A:\n    from openvino import Core"}, "data/a.py:2: imports 'openvino'"),
    "engine by way of a pass": (
        {"backends/onnx_passes/qdq.py": "import onnx_ir", "backends/base.py": "from .onnx_passes import qdq"},
        "backends/onnx_passes/qdq.py:1: 'razordeploy.backends.base' imports 'onnx_ir' on load",
    ),
    "mmengine by way of the runner": (
        {"train/runner.py": "import mmengine", "pipeline.py": "import razordeploy.train.runner"},
        "train/runner.py:1: 'razordeploy.pipeline' imports 'mmengine' on load",
    ),
}


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in {"__init__.py": "", **files}.items():
        file = root / "razordeploy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if file.parent.name != "razordeploy":
            (file.parent / "__init__.py").touch()


@pytest.mark.parametrize("case", BAD)
def test_each_rule_can_fail(tmp_path, case):
    files, expected = BAD[case]
    _write(tmp_path, files)
    found = violations(tmp_path)
    assert any(expected in text for text in found), found


def test_what_the_rules_allow(tmp_path):
    _write(
        tmp_path,
        {
            "errors.py": "",
            "config/a.py": "from razordeploy import errors\nfrom . import b",
            "config/b.py": "def f():\n    from razordeploy.config import a\n    import openvino",
            "backends/onnx_passes/qdq.py": "import onnx_ir",
            "backends/openvino/exporter.py": "import onnx_ir\nfrom razordeploy.backends.onnx_passes import qdq",
            "backends/openvino/backend.py": "from razordeploy.backends.openvino import exporter",
            "backends/registry.py": "from razordeploy.config import a",
        },
    )
    assert violations(tmp_path) == []
