"""mmrazor's MMArchitectureQuant and its quantizers, built from the registry and trained by its loops."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from razordeploy.capture.checkpoint import load_into
from razordeploy.config import mm_quant
from razordeploy.errors import DataError, RecipeError, UsageError
from razordeploy.integrations.architecture_quant import MMArchitectureQuant
from razordeploy.integrations.quantizers import QUANTIZERS
from razordeploy.quantization.fake_quants.base import FakeQuantizeBase
from razordeploy.quantization.qat import phases
from razordeploy.quantization.qat.loops import LOOPS
from razordeploy.registry import MODEL_WRAPPERS, MODELS
from razordeploy.train.runner import QuietRunner, close, run_name
from tests.quantization.qat.conftest import Blobs, Net
from tests.quantization.qat.test_loops import Right

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mmengine"),
]
OBSERVED = {
    "w_observer": {"type": "mmrazor.PerChannelMinMaxObserver"},
    "a_observer": {"type": "mmrazor.MovingAverageMinMaxObserver"},
    "w_fake_quant": {"type": "mmrazor.FakeQuantize"},
    "a_fake_quant": {"type": "mmrazor.FakeQuantize"},
    "w_qscheme": {"qdtype": "qint8", "bit": 8, "is_symmetry": True, "is_symmetric_range": True},
    "a_qscheme": {"qdtype": "quint8", "bit": 8, "is_symmetry": False, "averaging_constant": 0.1},
}
LEARNED = {
    **OBSERVED,
    "w_observer": {"type": "mmrazor.LSQPerChannelObserver"},
    "a_observer": {"type": "mmrazor.LSQObserver"},
    "w_fake_quant": {"type": "mmrazor.LearnableFakeQuantize"},
    "a_fake_quant": {"type": "mmrazor.LearnableFakeQuantize"},
    "a_qscheme": {"qdtype": "quint8", "bit": 8, "is_symmetry": False},
}


def trained_net() -> Net:
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for _ in range(20):
            net(Blobs().images)
    return net.eval()


def algorithm(
    quantizer: str = "OpenVINOQuantizer", qconfig: Any = OBSERVED, net: nn.Module | None = None, **more: Any
) -> MMArchitectureQuant:
    made = MODELS.build(
        {
            "type": "mmrazor.MMArchitectureQuant",
            "architecture": net or trained_net(),
            "quantizer": {"type": f"mmrazor.{quantizer}", "global_qconfig": qconfig},
            "input_shapes": (1, 1, 4, 4),
            **more,
        }
    )
    assert isinstance(made, MMArchitectureQuant)
    return made


def calibrated(**options: Any) -> MMArchitectureQuant:
    model = algorithm(**options).eval()
    for batch in DataLoader(Blobs(), batch_size=16):
        model.calibrate_step(batch)
    for quant in model.quantized.fake_quants():
        quant.disable_observer()
    return model


@pytest.mark.parametrize("name", QUANTIZERS)
def test_every_quantizer_is_registered_and_places_fake_quants(name):
    if name == "BaseQuantizer":
        with pytest.raises(RecipeError, match="unknown quantizer"):
            MODELS.build({"type": "mmrazor.BaseQuantizer"})
        return
    quantizer = MODELS.build({"type": f"mmrazor.{name}"})
    assert quantizer.backend.name == (mm_quant.QUANTIZERS[name] or "torch_native")
    prepared = quantizer.prepare(Net(16), {"mode": "tensor"}, example_inputs=Blobs().images[:1])
    assert not any(q.initialized for q in prepared.fake_quants())
    assert len(list(prepared.fake_quants())) >= 4 and prepared.plan.backend == quantizer.backend.name


def test_one_network_serves_every_mode():
    model = calibrated()
    x, labels = Blobs().images, Blobs().labels
    logits = model(x, mode="tensor")
    assert torch.equal(model(x, labels, mode="predict"), logits.argmax(1))
    loss = model(x, labels, mode="loss")["loss"]
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits, labels))
    assert set(model.qmodels) == {"tensor", "predict", "loss"} and len(set(model.qmodels.values())) == 1
    assert 0 < float((model.architecture(x) - logits).abs().max().detach()) < 0.2


@pytest.mark.parametrize("quantizer", ("AcademicQuantizer", "OpenVINOQuantizer"))
def test_what_is_deployed_is_what_the_network_computes(tmp_path, quantizer):
    if quantizer == "OpenVINOQuantizer":
        pytest.importorskip("openvino", reason="needs openvino")
    model = calibrated(quantizer=quantizer)
    with pytest.raises(DataError, match="no scale yet"):
        algorithm().get_deploy_model()
    deployed, x = model.get_deploy_model(), Blobs().images
    torch.testing.assert_close(deployed(x), model.eval()(x), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(model.quantizer.post_process_for_deploy(model.quantized)(x), deployed(x))
    import razordeploy as rd

    engine = rd.load_engine(model.export(tmp_path / "engine"))
    torch.testing.assert_close(torch.as_tensor(engine(x.numpy())), deployed(x), atol=1e-4, rtol=1e-3)


def run(model: nn.Module, folder: Path, loop: dict[str, Any], **more: Any) -> QuietRunner:
    return QuietRunner(
        model=model,
        work_dir=str(folder),
        train_dataloader=DataLoader(Blobs(), batch_size=16),
        train_cfg={**loop, "type": LOOPS[loop["type"]]},
        optim_wrapper={
            "optimizer": {"type": "SGD", "lr": 0.05, "weight_decay": 1e-4},
            "paramwise_cfg": {"custom_keys": {"_quant_": {"decay_mult": 0.0}}},
        },
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}},
        experiment_name=run_name("architecture_quant"),
        **more,
    )


def test_ptq_loop_calibrates_and_validates_both(tmp_path):
    model = algorithm()
    data = DataLoader(Blobs(), batch_size=16)
    checked = {"val_dataloader": data, "val_cfg": {"type": LOOPS["QATValLoop"]}, "val_evaluator": [Right()]}
    tested = {
        "test_dataloader": data,
        "test_evaluator": [Right()],
        "test_cfg": {"type": LOOPS["PTQLoop"], "calibrate_dataloader": data, "calibrate_steps": 2},
    }
    runner = run(model, tmp_path, {"type": "QATEpochBasedLoop", "max_epochs": 1}, **checked, **tested)
    found = runner.test()
    close(runner)
    assert set(found) == {"qat.right", "original.right"}
    again = algorithm()
    again.load_state_dict(torch.load(tmp_path / "model_ptq.pth", weights_only=True))
    x = Blobs().images
    for quant in again.quantized.fake_quants():
        quant.disable_observer()
    torch.testing.assert_close(again.eval()(x), model.eval()(x))


def test_lsq_trains_both_and_the_checkpoint_is_about_as_large_as_the_float_one(tmp_path):
    model = algorithm(qconfig=LEARNED)
    before = copy.deepcopy(model.architecture.state_dict())
    runner = run(model, tmp_path, {"type": "LSQEpochBasedLoop", "max_epochs": 2, "freeze_bn_begin": -1})
    runner.train()
    close(runner)
    after = model.architecture.state_dict()
    assert all(not torch.equal(before[k], after[k]) for k in ("conv1.weight", "linear.weight", "bn1.running_mean"))
    saved = torch.load(tmp_path / "epoch_2.pth", weights_only=False)["state_dict"]
    floats = sum(v.numel() for v in after.values())
    grids = sum(v.numel() for k, v in saved.items() if "_quant_" in k or "observer" in k)
    assert sum(v.numel() for v in saved.values()) == floats + grids
    # A plain model takes it, and so does another one of these, whose architecture has other weights.
    plain = Net()
    load_into(plain, tmp_path / "epoch_2.pth")
    assert torch.equal(plain.conv1.weight, model.architecture.conv1.weight)
    torch.manual_seed(7)
    other = algorithm(qconfig=LEARNED, net=Net())
    other.load_state_dict(saved)
    x = Blobs().images
    torch.testing.assert_close(other.eval()(x), model.eval()(x))
    torch.testing.assert_close(other.get_deploy_model()(x), model(x), atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_copies_and_moves_keep_the_weights_shared():
    model = copy.deepcopy(algorithm()).double().float()
    for name, twin in model._tied.items():
        mine = dict([*model.architecture.named_parameters(), *model.architecture.named_buffers()])[name]
        theirs = dict([*model.network.named_parameters(), *model.network.named_buffers()])[twin]
        assert mine.data_ptr() == theirs.data_ptr(), name
    names = {n for n, t in model.architecture.state_dict().items() if t.is_floating_point()}
    assert names <= set(model._tied)


def older_checkpoint(net: nn.Module) -> OrderedDict[str, torch.Tensor]:
    """As mmrazor's PTQ leaves one: the architecture, and a graph per mode with fake quants on its modules."""
    state = OrderedDict((f"architecture.{k}", v) for k, v in net.state_dict().items())
    for mode in ("tensor", "predict", "loss"):
        for key, value in net.state_dict().items():
            state[f"qmodels.{mode}.{key}"] = value
        for path, channels in (("conv1", 6), ("conv2", 6), ("linear", 2)):
            state[f"qmodels.{mode}.{path}.weight_fake_quant.scale"] = torch.full((channels,), 0.03)
            state[f"qmodels.{mode}.{path}.weight_fake_quant.zero_point"] = torch.zeros(channels, dtype=torch.int32)
        state[f"qmodels.{mode}.activation_post_process_0.scale"] = torch.tensor([0.1])
    return state


def test_an_older_checkpoint_brings_weights_and_their_scales():
    net = trained_net()
    torch.manual_seed(5)
    model = algorithm(net=Net().eval())
    model.load_state_dict(older_checkpoint(net))
    x = Blobs().images
    model.eval()
    torch.testing.assert_close(model.architecture.eval()(x), net(x))
    quants = dict(model.network.named_modules())
    weights = {q for _, q, _ in model.quantized.weight_fake_quants()}
    for name, quant in quants.items():
        if isinstance(quant, FakeQuantizeBase):
            assert quant.initialized == (name.removeprefix("module.") in weights), name
    for batch in DataLoader(Blobs(), batch_size=16):  # activations are calibrated anew, weights are not
        for path in weights:
            model.network.module.get_submodule(path).disable_observer()
        model.calibrate_step(batch)
    scales = {g: q.scale for g, q in model.quantized.params().items() if q.scale.ndim}
    assert len(scales) == 3
    for scale in scales.values():
        torch.testing.assert_close(scale, torch.full_like(scale, 0.03))


def test_a_float_checkpoint_and_a_factory(tmp_path):
    from razordeploy.models.digits import resnet8

    torch.save(resnet8().state_dict(), tmp_path / "float.pth")
    model = algorithm(
        net={"type": "razordeploy.models.digits:resnet8"},
        float_checkpoint=str(tmp_path / "float.pth"),
        input_shapes=(1, 1, 8, 8),
    )
    state = torch.load(tmp_path / "float.pth", weights_only=True)
    assert all(torch.equal(v, state[k]) for k, v in model.architecture.state_dict().items())


def test_a_frozen_architecture_is_calibrated():
    model = calibrated(net=trained_net().requires_grad_(False))
    assert model.get_deploy_model()(Blobs().images).shape == (48, 2)
    torch.manual_seed(5)
    fresh = algorithm(net=Net().eval().requires_grad_(False))
    fresh.load_state_dict(model.state_dict())
    for quant in fresh.quantized.fake_quants():
        quant.disable_observer()
    torch.testing.assert_close(fresh.eval()(Blobs().images), model.eval()(Blobs().images))


def test_modes_that_are_left_out_are_those_of_the_float_model():
    model = algorithm(forward_modes=("predict",))
    x = Blobs().images
    assert set(model.qmodels) == {"predict"}
    torch.testing.assert_close(model(x, mode="tensor"), trained_net()(x))


def _one_process(rank: int, folder: str, count: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/group", rank=rank, world_size=count)
    torch.save(_gradients(rank, count), f"{folder}/{rank}.pth")
    torch.distributed.destroy_process_group()


def _gradients(rank: int, count: int) -> dict[str, torch.Tensor]:
    model = calibrated(qconfig=LEARNED)
    phases.train_phase(model, observe=False)
    phases.freeze_norms(model)
    wrapper: Any = MODEL_WRAPPERS.get("mmrazor.MMArchitectureQuantDDP")
    wrapped = wrapper(module=model) if count > 1 else model
    images, labels = Blobs().images[rank::count], Blobs().labels[rank::count]
    wrapped(images, labels, mode="loss")["loss"].backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_two_processes_have_the_gradients_of_one(tmp_path):
    torch.multiprocessing.start_processes(_one_process, (str(tmp_path), 2), nprocs=2, start_method="fork")
    expected = _gradients(0, 1)
    assert any("_quant_" in name for name in expected)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"forward_modes": ("tensor", "train")}, RecipeError, "expected forward_modes among tensor, predict, loss"),
        ({"quantizer": {"type": "mmrazor.OpenVINOQuantiser"}}, RecipeError, "unknown quantizer"),
        ({"quantizer": {"type": "mmrazor.MinMaxObserver"}}, RecipeError, "expected a quantizer, got MinMaxObserver"),
        ({"architecture": 3}, RecipeError, "architecture: expected a dict or a module"),
    ],
)
def test_what_cannot_be_built_is_said(change, error, text):
    config = {"architecture": trained_net(), "quantizer": {"type": "mmrazor.AcademicQuantizer"}, **change}
    with pytest.raises(error, match=text):
        MMArchitectureQuant(**config, input_shapes=(1, 1, 4, 4))


def test_a_detector_is_sent_to_the_command_line():
    net = trained_net()
    net.bbox_head = nn.Identity()
    with pytest.raises(RecipeError, match="got the detector Net; detectors go by the command line"):
        algorithm(net=net)


def test_a_quantizer_wants_inputs_and_knows_its_keys():
    quantizer = MODELS.build({"type": "mmrazor.OpenVINOQuantizer"})
    with pytest.raises(UsageError, match="needs inputs to capture"):
        quantizer.prepare(trained_net())
    with pytest.raises(RecipeError, match="global_qconfg"):
        MODELS.build({"type": "mmrazor.OpenVINOQuantizer", "global_qconfg": {}})


def test_mmengines_own_runner_builds_it_from_a_config(tmp_path):
    model = {
        "type": "mmrazor.MMArchitectureQuant",
        "architecture": {"type": "razordeploy.models.digits:resnet8"},
        "quantizer": {"type": "mmrazor.OpenVINOQuantizer", "global_qconfig": LEARNED},
        "input_shapes": (1, 1, 8, 8),
    }
    runner = Runner(
        model=model, work_dir=str(tmp_path), experiment_name=run_name("from_config"), default_scope="mmrazor"
    )
    assert isinstance(runner.model, MMArchitectureQuant)
    close(runner)


def test_a_classifier_of_mmcls_has_its_heads_loss_and_predictions():
    pytest.importorskip("mmcls", reason="needs mmcls")
    from mmcls.structures import ClsDataSample

    classifier = {
        "_scope_": "mmcls",
        "type": "ImageClassifier",
        "data_preprocessor": {"mean": [100.0] * 3, "std": [50.0] * 3},
        "backbone": {"type": "ResNet", "depth": 18, "stem_channels": 8, "base_channels": 8},
        "neck": {"type": "GlobalAveragePooling"},
        "head": {"type": "LinearClsHead", "num_classes": 3, "in_channels": 64, "loss": {"type": "CrossEntropyLoss"}},
    }
    model = algorithm(net=classifier, input_shapes=(1, 3, 32, 32)).eval()
    torch.manual_seed(0)
    data = {
        "inputs": [torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8) for _ in range(4)],
        "data_samples": [ClsDataSample().set_gt_label(i % 3) for i in range(4)],
    }
    found = model.calibrate_step(data)
    assert [s.pred_label.label.shape for s in found] == [(1,)] * 4
    inputs = model.data_preprocessor(data, False)
    losses = model(**inputs, mode="loss")
    logits = model(inputs["inputs"], mode="tensor")
    torch.testing.assert_close(losses["loss"], nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])))
    assert {k for k, v in model.architecture.state_dict().items() if v.is_floating_point()} <= set(model._tied)
