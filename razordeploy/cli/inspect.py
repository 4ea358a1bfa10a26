"""``razordeploy backends`` and ``razordeploy doctor``; neither imports an engine that is not asked to prove itself."""

from __future__ import annotations

import json
import os
import sys
from importlib import metadata
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from razordeploy.backends.registry import BUILT_IN, backend_names, find_backend, missing_modules
from razordeploy.config.backend_spec import BackendSpec, load_backend_spec
from razordeploy.config.paths import backend_configs_dir
from razordeploy.environment import cpu_flags, cpu_name, threads
from razordeploy.errors import RazorDeployError
from razordeploy.lazy import available

_LIMIT = "DNNL_MAX_CPU_ISA"
"""What limits oneDNN's instructions, for tests of other processors."""
_PACKAGES = (
    *("torch", "torchao", "numpy", "onnx", "onnxscript", "onnxruntime", "openvino", "mmengine", "mmcls"),
    *(
        "mmpretrain",
        "mmcv",
        "mmcv-lite",
        "setuptools",
        "tensorrt",
        "cuda-bindings",
        "nncf",
        "optuna",
        "ray",
        "submitit",
    ),
)


EXTRAS = {"hpo": ("optuna", "scipy"), "ray": ("ray",), "slurm": ("submitit",)}
"""Extra that is no backend -> modules it brings."""


def _specs() -> list[BackendSpec]:
    return [load_backend_spec(path) for path in sorted(backend_configs_dir().glob("*.yaml"))]


def print_backends() -> None:
    """Print every backend with what it is and whether it is installed."""
    console = Console()
    table = Table(box=box.SIMPLE_HEAD)
    for header in ("backend", "installed", "what it is, or how to get it"):
        table.add_column(header, overflow="fold")
    for spec in _specs():
        missing = missing_modules(spec)
        lacking = [] if missing else [module for module in spec.engine_requires if not available(module)]
        if lacking:
            hint = f"pip install 'razordeploy\\[{spec.extra}]'"
            table.add_row(
                spec.name, "graph", f"writes the graph, builds no engine: {hint}   (lacks {', '.join(lacking)})"
            )
            continue
        text = f"pip install 'razordeploy\\[{spec.extra}]'   (lacks {', '.join(missing)})" if missing else spec.summary
        table.add_row(spec.name, "no" if missing else "yes", text)
    for name, problem in _outside().items():
        table.add_row(escape(name), "no" if problem else "yes", escape(problem or "of another package"))
    console.print(table)


def _outside() -> dict[str, str | None]:
    """Backends that other packages register -> why each cannot be used; None: it can."""
    found: dict[str, str | None] = {}
    for name in backend_names():
        if name not in BUILT_IN:
            try:
                find_backend(name)
                found[name] = None
            except RazorDeployError as error:
                found[name] = str(error)
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def examine() -> dict[str, Any]:
    """Facts about this machine, and ``problems``: one sentence each, with what to do."""
    packages = {name: version for name in _PACKAGES if (version := _version(name))}
    flags = cpu_flags()
    backends: dict[str, dict[str, Any]] = {
        spec.name: {
            "installed": not missing_modules(spec),
            "missing": [*missing_modules(spec), *(m for m in spec.engine_requires if not available(m))],
        }
        for spec in _specs()
    }
    for name, problem in _outside().items():
        backends[name] = {"installed": problem is None, "missing": [] if problem is None else [problem]}
    return {
        "python": sys.version.split()[0],
        "cpu": cpu_name(),
        "cpu_flags": flags,
        "threads": threads(),
        "vnni": has_vnni(flags),
        "packages": packages,
        "backends": backends,
        "problems": _problems(packages, flags),
    }


def _problems(packages: dict[str, str], flags: list[str]) -> list[str]:
    found = []
    if "torch" not in packages:
        found.append("torch is not installed: pip install torch")
    elif _number(packages["torch"]) < (2, 10):
        found.append(f"torch {packages['torch']} is older than 2.10: loading untrusted checkpoints is not safe")
    if "mmengine" in packages and _number(packages.get("setuptools", "0")) >= (82,):
        found.append(
            f"setuptools {packages['setuptools']} has no pkg_resources, which mmengine reads 'mmcls::' configs with: "
            "pip install 'setuptools<82'"
        )
    if "mmcls" in packages and _number(packages.get("mmcv-lite", packages.get("mmcv", "0"))) >= (2, 1):
        found.append("mmcls 1.0.0rc6 wants mmcv below 2.1: pip install mmcv-lite==2.0.1")
    if "avx2" in flags and not has_vnni(flags):
        limited = os.environ.get(_LIMIT)
        what = f"{_LIMIT}={limited} keeps oneDNN off VNNI" if limited else "this processor has no VNNI"
        found.append(
            f"{what}: sums of int8 products saturate at 16 bits and engines may lose accuracy; make engines with "
            "--set quantize.reduced_range=True, which halves the weights' range, or deploy on a processor that has it"
        )
    return found


def has_vnni(flags: list[str]) -> bool:
    """Tell whether oneDNN, which OpenVINO and torch compute with, adds up products of int8 in 32 bits here."""
    limit = os.environ.get(_LIMIT, "").upper()
    allowed = not limit or "VNNI" in limit or "AMX" in limit or limit in ("DEFAULT", "ALL")
    return allowed and any("vnni" in f or "amx_int8" in f for f in flags)


def _number(version: str) -> tuple[int, ...]:
    digits = version.split("+")[0].split(".")
    return tuple(int(d) for d in digits[:2] if d.isdigit())


def doctor(*, json_output: bool) -> int:
    """Print the examination; 0 when some backend works here and there is no problem, 1 otherwise."""
    facts = examine()
    works = [name for name, entry in facts["backends"].items() if entry["installed"]]
    code = 0 if works and not facts["problems"] else 1
    if json_output:
        print(json.dumps(facts, indent=2))
        return code
    console = Console()
    console.print(f"Python {facts['python']}, {facts['cpu']}, {facts['threads']} threads", markup=False)
    vnni = "int8 dot products without saturation" if facts["vnni"] else "no VNNI"
    console.print(
        f"Instructions: {' '.join(facts['cpu_flags']) or 'none of those that int8 uses'} ({vnni})", markup=False
    )
    console.print("Packages: " + ", ".join(f"{n} {v}" for n, v in facts["packages"].items()), markup=False)
    print_backends()
    for extra, modules in EXTRAS.items():
        state = "installed" if all(map(available, modules)) else f"pip install 'razordeploy[{extra}]'"
        console.print(f"{extra}: {state}", markup=False)
    for problem in facts["problems"]:
        console.print(f"problem: {problem}", markup=False, soft_wrap=True)
    return code
