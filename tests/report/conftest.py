import random

import pytest

CELL = ["conv2d", "relu", "conv2d", "add", "relu", "reshape", "gelu"]
STATE = {"relu": "fused", "reshape": "moves", "gelu": "float"}
WHY = "the engine has no int8 kernel of use for this activation"


def operations(count, stages=4):
    """Made-up operations of a network of ``stages`` stages, ``CELL`` after ``CELL``."""
    found = []
    for i in range(count):
        op, cell = CELL[i % len(CELL)], i // len(CELL)
        state = STATE.get(op, "int8")
        record = {
            "node": f"{op}_{i}",
            "op": op,
            "module": f"backbone.stage{cell * stages * len(CELL) // max(count, 1)}.{cell}.{op}{i % len(CELL)}",
            "state": state,
        }
        if state == "float":
            record["reason"] = WHY
        else:
            record["kernel"] = "Convolution in u8"
        found.append(record)
    return found


def layers_of(ops):
    """A made-up SQNR for every int8 operation."""
    shake = random.Random(3)
    return [
        {"node": op["node"], "module": op["module"], "op": op["op"], "sqnr_db": shake.uniform(14, 42)}
        for op in ops
        if op["state"] == "int8"
    ]


def backend(gap=0.12, **changes):
    shake = random.Random(3)
    ops = operations(49)
    graph = ["Convolution"] * 20 + ["Add"] * 8 + ["FullyConnected"] + ["ReLU"] * 17
    return {
        "metrics": {
            "float": {"top1": 91.5, "samples": 1000},
            "simulated": {"top1": 91.44, "samples": 1000},
            "engine": {"top1": 91.5 - gap, "samples": 1000},
        },
        "gap": {"float_to_simulated": 0.06, "simulated_to_engine": gap - 0.06, "float_to_engine": gap},
        "coverage": {
            "planned": 31,
            "int8": 29,
            "float": [
                {"node": "/head/fc", "op": "FullyConnected", "reason": "kept in float by the recipe"},
                {"node": "/stage1/add", "op": "Add", "reason": "its inputs are on two grids"},
            ],
        },
        "parity": {"max_abs": 0.0312, "sqnr_db": 41.7, "steps": 0.8},
        "latency_ms": {"float": {"p50": 3.11, "p90": 3.4, "p99": 5.2}, "engine": {"p50": 1.31, "p90": 1.5, "p99": 2.9}},
        "speedup": 2.374,
        "size_bytes": {"float": 1_103_000, "engine": 296_000},
        "calibration": {"samples": 128, "seconds": 4.2},
        "limits": {"max_drop": 1.0},
        "passed": True,
        "layers": layers_of(ops),
        "ops": ops,
        "scheme": [
            {
                "role": "activation",
                "dtype": "uint8",
                "symmetric": False,
                "per_channel": False,
                "observer": "MinMaxObserver",
                "tensors": 22,
            },
            {
                "role": "weight",
                "dtype": "int8",
                "symmetric": True,
                "per_channel": True,
                "observer": "MSEObserver",
                "tensors": 21,
            },
        ],
        "benchmark": {"batch": 1, "threads": 0},
        "latency_samples_ms": {
            "float": [3 + shake.expovariate(4) for _ in range(400)],
            "engine": [1.2 + shake.expovariate(6) for _ in range(400)],
        },
        "graph": [
            {"name": f"n{i}", "op": op, "precision": "float32" if op == "FullyConnected" or i == 25 else "int8"}
            for i, op in enumerate(graph)
        ],
        "files": {"engine": "model.xml", "engine_weights": "model.bin"},
        "usage": "import openvino as ov\nengine = ov.Core().compile_model('work/openvino/model.xml', 'CPU')",
        "seconds": {"capture": 3.1, "calibrate": 4.2, "place": 0.2, "export": 1.9, "validate": 11.0},
    } | changes


@pytest.fixture
def report():
    return {
        "schema_version": 1,
        "recipe": "recipes/ptq/resnet20_digits.py",
        "model": "resnet20",
        "created": "2026-01-31T12:00:00+00:00",
        "seed": 0,
        "environment": {
            "versions": {"torch": "2.13.0", "openvino": "2026.1.0"},
            "cpu": "Made-up 3000",
            "cpu_flags": ["avx2", "avx512_vnni"],
            "os": "Linux 6.1",
            "python": "3.11.7",
            "threads": 2,
        },
        "command": "razordeploy ptq recipes/ptq/resnet20_digits.py --backend openvino,onnxruntime",
        "calibration": {"samples": 128, "seconds": 4.2, "source": "digits/train"},
        "evaluation": {"source": "digits/test"},
        "inputs": [{"name": "x", "shape": [None, 1, 8, 8], "dtype": "float32"}],
        "outputs": [{"name": "output", "shape": [None, 10], "dtype": "float32"}],
        "warnings": [],
        "backends": {"openvino": backend(), "onnxruntime": backend(gap=-0.02, speedup=1.9)},
    }


@pytest.fixture
def failed_backend():
    return {
        "passed": False,
        "error": "'tensorrt' is not installed; pip install 'razordeploy[tensorrt]'",
        "exit_code": 3,
    }
