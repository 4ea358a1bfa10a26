import random

import pytest


def backend(gap=0.12, **changes):
    shake = random.Random(3)
    ops = ["Convolution"] * 20 + ["Add"] * 8 + ["FullyConnected"] + ["ReLU"] * 17
    return {
        "metrics": {"float": {"top1": 91.5}, "simulated": {"top1": 91.44}, "engine": {"top1": 91.5 - gap}},
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
        "layers": [
            {"node": f"conv2d_{i}", "module": f"backbone.stage{i // 7}.conv{i % 7}", "op": "conv2d", "sqnr_db": db}
            for i, db in enumerate(shake.uniform(14, 42) for _ in range(21))
        ],
        "latency_samples_ms": {
            "float": [3 + shake.expovariate(4) for _ in range(400)],
            "engine": [1.2 + shake.expovariate(6) for _ in range(400)],
        },
        "graph": [
            {"name": f"n{i}", "op": op, "precision": "float32" if op == "FullyConnected" or i == 25 else "int8"}
            for i, op in enumerate(ops)
        ],
        "files": {"graph": "openvino/model.xml", "weights": "openvino/model.bin"},
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
            "cpu_flags": ["avx2", "avx512_vnni"],
            "os": "Linux 6.1",
            "python": "3.11.7",
            "threads": 2,
        },
        "command": "razordeploy ptq recipes/ptq/resnet20_digits.py --backend openvino,onnxruntime",
        "calibration": {"samples": 128, "seconds": 4.2, "source": "digits/train"},
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
