"""The deploy and calibration sections."""

import pytest

from razordeploy.config.sections import CalibrationConfig, DeployConfig
from razordeploy.errors import RecipeError


def test_defaults():
    assert DeployConfig.parse({}, "r.py") == DeployConfig(max_drop=1.0, batch_size=1, metric="top1", dynamic_batch=True)
    assert CalibrationConfig.parse({}, "r.py") == CalibrationConfig(num_samples=300, batch_size=None, split="train")


def test_values():
    config = DeployConfig.parse(
        {
            "backends": "openvino,onnxruntime",
            "input_shapes": [[3, 32, 32], (7,)],
            "input_names": ["image", "age"],
            "output_names": "logits",
            "dynamic_batch": False,
            "max_drop": 0,
            "metric": "mine.metrics:top1",
        },
        "r.py",
    )
    assert config.backends == ("openvino", "onnxruntime")
    assert config.input_shapes == ((3, 32, 32), (7,))
    assert config.output_names == ("logits",)
    assert config.dynamic_batch is False
    assert config.max_drop == 0.0
    assert config.metric == "mine.metrics:top1"
    assert DeployConfig.parse({"input_shape": [1, 8, 8]}, "r.py").input_shapes == ((1, 8, 8),)


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({"backend": "x"}, "r.py: unknown key 'backend' in 'deploy'; did you mean 'backends'?"),
        ([], "r.py: expected a dict for 'deploy', got list []"),
        (
            {"backends": ["a", "a"]},
            "r.py: expected a list of different backend names for 'deploy.backends', got list ['a', 'a']",
        ),
        (
            {"input_shape": (1, 3, 32, 32)},
            "r.py: expected a shape without the batch, (3, 32, 32), for 'deploy.input_shape', got tuple (1, 3, 32, 32)",
        ),
        (
            {"input_shape": (3, 0)},
            "r.py: expected positive integers such as (3, 32, 32) for 'deploy.input_shape', got tuple (3, 0)",
        ),
        (
            {"input_shapes": (3, 32, 32)},
            "r.py: expected a list of shapes such as [(3, 32, 32)] for 'deploy.input_shapes', got tuple (3, 32, 32)",
        ),
        (
            {"input_shapes": [(3,)], "input_shape": (3,)},
            "r.py: 'deploy' has both input_shape and input_shapes; keep one",
        ),
        ({"input_shape": (3,), "input_names": ["a", "b"]}, "r.py: 'deploy' has 2 input_names for 1 input shapes"),
        ({"max_drop": -1}, "r.py: expected a number of at least 0 for 'deploy.max_drop', got int -1"),
        ({"max_drop": float("nan")}, "r.py: expected a number of at least 0 for 'deploy.max_drop', got float nan"),
        ({"batch_size": 0}, "r.py: expected an integer of at least 1 for 'deploy.batch_size', got int 0"),
        ({"dynamic_batch": 1}, "r.py: expected True or False for 'deploy.dynamic_batch', got int 1"),
        ({"metric": "top"}, "r.py: expected 'top1' or 'pkg.module:function' for 'deploy.metric', got str 'top'"),
    ],
)
def test_bad_deploy(section, text):
    with pytest.raises(RecipeError) as caught:
        DeployConfig.parse(section, "r.py")
    assert str(caught.value) == text


def test_bad_calibration():
    with pytest.raises(RecipeError, match=r"^r.py: unknown key 'samples' in 'calibration'; "):
        CalibrationConfig.parse({"samples": 3}, "r.py")
    with pytest.raises(RecipeError, match=r"an integer of at least 1 for 'calibration.num_samples', got int 0$"):
        CalibrationConfig.parse({"num_samples": 0}, "r.py")
