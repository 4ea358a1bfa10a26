"""What the plug-in does in one process: which images calibrate, what is made of them, where subnets come in."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
import yaml

from tests.integrations.mmdeploy.conftest import NETWORK, build, codebase, deploy_config, quantized_world, write_config


@pytest.fixture
def plugin():
    from razordeploy.integrations.mmdeploy.install import install

    install()


@pytest.fixture
def told():
    """Warnings and errors of mmdeploy's logger."""
    from mmdeploy.utils import get_root_logger

    found = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())
    get_root_logger().addHandler(handler)
    yield found
    get_root_logger().removeHandler(handler)


def chosen(world, tmp_path, *, dataset_cfg=None, **calib):
    from razordeploy.integrations.mmdeploy.calibration import choose_calibration_data

    config = deploy_config(tmp_path, "openvino", calib_config=calib)
    _, given = choose_calibration_data(
        "c.h5", str(config), str(world.model_cfg), "x.pth", dataset_cfg=dataset_cfg, dataset_type="val", device="cpu"
    )
    return given


def test_training_images_as_the_tests_see_them(plugin, told, world, tmp_path):
    given = chosen(world, tmp_path)
    assert given["dataset_type"] == "train"
    subset = given["dataset_cfg"]["train_dataloader"]["dataset"]
    assert subset["num_samples"] == 300
    assert subset["dataset"]["data_prefix"] == "train"
    assert not any(step["type"] == "RandomFlip" for step in subset["dataset"]["pipeline"])
    assert told == []


def test_fewer_images(plugin, world, tmp_path):
    from mmengine.registry import DATASETS

    given = chosen(world, tmp_path, num_samples=7)
    build(copy.deepcopy(NETWORK))  # registers the code base's data sets
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope(codebase()):
        data = DATASETS.build(given["dataset_cfg"]["train_dataloader"]["dataset"])
    assert len(data) == 7
    assert len(set(data.indices)) == 7
    assert data[0]["inputs"].shape == (3, 32, 32)


def test_evaluation_images_are_warned_of(plugin, told, world, tmp_path):
    given = chosen(world, tmp_path, dataset_type="val")
    assert given["dataset_type"] == "val"
    assert "calibration and evaluation read the same images" in told[0]
    told.clear()
    chosen(world, tmp_path, dataset_cfg=str(world.model_cfg))
    assert "the same images" in told[0], "a data config's val set is that of the tests here"


def test_no_training_data(plugin, told, world, tmp_path):
    text = world.model_cfg.read_text().replace("train_dataloader = _loader", "unused = _loader")
    (tmp_path / "model.py").write_text(text)
    given = chosen(type(world)(model_cfg=tmp_path / "model.py"), tmp_path)
    assert given["dataset_type"] == "val"
    assert "no train_dataloader to calibrate with: val_dataloader is taken" in told[0]


def test_unknown_option(plugin, tmp_path):
    from razordeploy.errors import RecipeError
    from razordeploy.integrations.mmdeploy.quantize import engine_files

    with pytest.raises(RecipeError, match="unknown key 'quantise' in 'razordeploy'; did you mean 'quantize'"):
        engine_files("openvino", tmp_path / "a.onnx", tmp_path, {"razordeploy": {"quantise": {}}})


def test_checkpoints_run_nothing(plugin, tmp_path):
    from mmengine.runner.checkpoint import load_checkpoint

    from razordeploy.errors import CheckpointError

    class Payload:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"state_dict": {}, "meta": Payload()}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="holds more than weights"):
        load_checkpoint(torch.nn.Linear(1, 1), str(tmp_path / "bad.pth"))


def exported(world_model_cfg, config, checkpoint, image, folder):
    """The calls of the first half of ``tools/deploy.py``, in this process."""
    from mmdeploy.apis import create_calib_input_data, torch2onnx
    from mmdeploy.apis.utils import to_backend
    from mmdeploy.utils import get_backend, get_calib_filename, load_config

    deploy_cfg, _ = load_config(str(config), str(world_model_cfg))
    torch2onnx(str(image), str(folder), "end2end.onnx", str(config), str(world_model_cfg), str(checkpoint), "cpu")
    calibration = get_calib_filename(deploy_cfg)
    if calibration is not None:
        create_calib_input_data(
            str(folder / calibration), str(config), str(world_model_cfg), str(checkpoint), None, "val", "cpu"
        )
    return to_backend(
        get_backend(deploy_cfg), [str(folder / "end2end.onnx")], str(folder), deploy_cfg=deploy_cfg, device="cpu"
    )


def scores(files, model_cfg, config, images):
    from mmdeploy.apis.utils import build_task_processor
    from mmdeploy.utils import load_config

    deploy_cfg, model = load_config(str(config), str(model_cfg))
    processor = build_task_processor(model, deploy_cfg, "cpu")
    engine = processor.build_backend_model(files, data_preprocessor_updater=processor.update_data_preprocessor)
    return engine.wrapper({"input": images})["output"]


IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def test_float_engine_without_a_calibration(plugin, world, tmp_path):
    config = deploy_config(tmp_path, "onnxruntime", calib_config={"create_calib": False})
    (file,) = exported(world.model_cfg, config, world.checkpoint, world.image, tmp_path)
    found = scores([file], world.model_cfg, config, IMAGES)
    with torch.no_grad():
        expected = world.model.head.fc(world.model.extract_feat(IMAGES)[-1]).softmax(1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("how", ["ptq", "qat"])
def test_engine_of_our_own_verbs(plugin, world, tmp_path, how):
    import razordeploy as rd

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = copy.deepcopy(world.model)

        def forward(self, x):
            return self.net.head.fc(self.net.extract_feat(x)[-1]).softmax(1)

    options = {"example_inputs": (IMAGES,), "backend": "openvino", "out_dir": tmp_path / "ours"}
    if how == "ptq":
        artifact = rd.ptq(Net().eval(), [IMAGES], **options)
    else:
        data = [(IMAGES, torch.tensor([0, 1, 2, 3]))]
        artifact = rd.qat(Net(), data, settings={"epochs": 1}, **options)
    config = deploy_config(
        tmp_path, "openvino", calib_config={"create_calib": False}, razordeploy={"engine": str(tmp_path / "ours")}
    )
    (file,) = exported(world.model_cfg, config, world.checkpoint, world.image, tmp_path)
    found = scores([file], world.model_cfg, config, IMAGES)
    np.testing.assert_array_equal(found, rd.load_engine(artifact)(IMAGES.numpy()))


@pytest.mark.parametrize(
    ("backend", "quantizer"),
    [("openvino", "OpenVINOQuantizer"), ("tensorrt", "TensorRTQuantizer"), ("onnxruntime", "OpenVINOQuantizer")],
)
def test_engine_of_a_quantized_checkpoint(plugin, told, world, tmp_path, backend, quantizer):
    quantized = quantized_world(world, tmp_path, quantizer)
    config = deploy_config(tmp_path, backend)
    (file,) = exported(quantized.model_cfg, config, quantized.checkpoint, world.image, tmp_path)
    found = scores([file], quantized.model_cfg, config, IMAGES)
    expected = quantized.model.get_deploy_model()(IMAGES)
    expected = (expected[0] if isinstance(expected, tuple | list) else expected).softmax(1)
    steps = float((found - expected).abs().max())
    if backend == "onnxruntime":
        assert any("was quantized for 'openvino'" in line and "calibrated anew" in line for line in told)
        assert steps < 0.2
    else:
        assert not any(line.startswith("razordeploy") for line in told)
        assert steps < 0.02, "the scales are those of the checkpoint"
    assert (tmp_path / "razordeploy" / "trained").is_dir() == (backend != "onnxruntime")


def test_a_quantized_checkpoint_without_scales_is_calibrated(plugin, told, world, tmp_path):
    quantized = quantized_world(world, tmp_path, "OpenVINOQuantizer", scales=False)
    config = deploy_config(tmp_path, "openvino")
    exported(quantized.model_cfg, config, quantized.checkpoint, world.image, tmp_path)
    assert any("has no scales: it is calibrated" in line for line in told)
    # An engine of an earlier run is not taken for one of this checkpoint.
    (tmp_path / "razordeploy" / "trained").mkdir()
    exported(quantized.model_cfg, config, quantized.checkpoint, world.image, tmp_path)
    assert not (tmp_path / "razordeploy" / "trained").exists()


def test_a_quantized_checkpoint_of_mmrazor(plugin, told, world, tmp_path):
    """Weights once plain and once per mode, scales in graphs of its own: the weights are taken, and calibrated anew."""
    quantized = quantized_world(world, tmp_path, "OpenVINOQuantizer", scales=False)
    state = torch.load(quantized.checkpoint, weights_only=True)["state_dict"]
    weights = {key.removeprefix("architecture."): value for key, value in state.items()}
    for mode in ("tensor", "predict", "loss"):
        state |= {f"qmodels.{mode}.{key}": value for key, value in weights.items()}
        state[f"qmodels.{mode}.activation_post_process_0.scale"] = torch.ones(1)
        state[f"qmodels.{mode}.activation_post_process_0.zero_point"] = torch.zeros(1, dtype=torch.int32)
        state[f"qmodels.{mode}.backbone.conv1.weight_fake_quant.scale"] = torch.full((16,), 0.01)
    torch.save({"state_dict": state, "meta": {}}, quantized.checkpoint)
    config = deploy_config(tmp_path, "openvino")
    (file,) = exported(quantized.model_cfg, config, quantized.checkpoint, world.image, tmp_path)
    assert any("no scales of activations that fit here" in line for line in told)
    found = scores([file], quantized.model_cfg, config, IMAGES)
    with torch.no_grad():
        expected = world.model.head.fc(world.model.extract_feat(IMAGES)[-1]).softmax(1)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    assert float((found - expected).abs().max()) > 0, "int8, not float"


def test_a_distilled_student(plugin, world, tmp_path):
    network = {
        "type": "mmrazor.SingleTeacherDistill",
        "architecture": {**NETWORK, "_scope_": codebase()},
        "teacher": {**NETWORK, "_scope_": codebase()},
        "distiller": {"type": "ConfigurableDistiller"},
    }
    model_cfg = write_config(tmp_path / "kd.py", network, world.images)
    state = {f"architecture.{key}": value for key, value in world.model.state_dict().items()}
    state |= {f"teacher.{key}": torch.zeros_like(value) for key, value in world.model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "kd.pth")
    config = deploy_config(tmp_path, "onnxruntime", calib_config={"create_calib": False})
    (file,) = exported(model_cfg, config, tmp_path / "kd.pth", world.image, tmp_path)
    found = scores([file], model_cfg, config, IMAGES)
    with torch.no_grad():
        expected = world.model.head.fc(world.model.extract_feat(IMAGES)[-1]).softmax(1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_pruning_algorithm_is_refused_with_the_way(plugin, world, tmp_path):
    from razordeploy.errors import RecipeError

    network = {"type": "mmrazor.ItePruneAlgorithm", "architecture": {**NETWORK, "_scope_": codebase()}}
    model_cfg = write_config(tmp_path / "prune.py", network, world.images)
    config = deploy_config(tmp_path, "onnxruntime")
    with pytest.raises(RecipeError, match="'ItePruneAlgorithm' is an algorithm.*razordeploy export"):
        exported(model_cfg, config, world.checkpoint, world.image, tmp_path)


def test_pruned_subnet(plugin, world, tmp_path):
    import razordeploy as rd

    found = rd.channel_units(copy.deepcopy(world.model), (IMAGES,))
    units = {name: unit.channels // 2 for name, unit in found.items()}
    (tmp_path / "subnet.yaml").write_text(yaml.safe_dump(units))
    small = rd.load_fix_subnet(copy.deepcopy(world.model), units, example_inputs=(IMAGES,))
    torch.save({"state_dict": small.state_dict()}, tmp_path / "small.pth")
    network = {
        "type": "mmrazor.sub_model",
        "cfg": {**NETWORK, "_scope_": codebase()},
        "fix_subnet": str(tmp_path / "subnet.yaml"),
    }
    model_cfg = write_config(tmp_path / "subnet_model.py", network, world.images)
    config = deploy_config(tmp_path, "onnxruntime")
    (file,) = exported(model_cfg, config, tmp_path / "small.pth", world.image, tmp_path)
    found = scores([file], model_cfg, config, IMAGES)
    with torch.no_grad():
        expected = small.eval().head.fc(small.extract_feat(IMAGES)[-1]).softmax(1)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    assert (tmp_path / "end2end_float.onnx").stat().st_size < sum(p.numel() for p in world.model.parameters()) * 3


OPEN = {"input": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch"}}


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_stock_deploy_config_with_one_line_more(plugin, world, tmp_path, backend):
    """Opset 11, open image sizes, mmdeploy's own calib_config."""
    onnx_config = {"opset_version": 11, "dynamic_axes": OPEN, "input_shape": None, "keep_initializers_as_inputs": False}
    inputs = [{"opt_shapes": {"input": [1, 3, 32, 32]}}]
    config = deploy_config(
        tmp_path, backend, onnx_config=onnx_config, backend_config={"type": backend, "model_inputs": inputs},
        calib_config={"_delete_": True, "create_calib": True, "calib_file": "calib_data.h5"},
    )  # fmt: skip
    (file,) = exported(world.model_cfg, config, world.checkpoint, world.image, tmp_path)
    found = scores([file], world.model_cfg, config, IMAGES)
    with torch.no_grad():
        expected = world.model.head.fc(world.model.extract_feat(IMAGES)[-1]).softmax(1)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    assert float((found - expected).abs().max()) > 0, "int8, not float"
