"""mmcls networks as they are trained, from the bare module to engines of the form that is deployed."""

from __future__ import annotations

import copy
import warnings
from collections import Counter

import numpy as np
import pytest
import torch

import razordeploy as rd
from razordeploy.capture.export import capture
from razordeploy.lazy import available

pytestmark = pytest.mark.skipif(not available("mmcls"), reason="mmcls is not installed")


class _Classifier(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, torch.nn.LazyLinear(100)

    def forward(self, x):
        return self.head(self.backbone(x)[-1].mean((2, 3)))


def _network(name, arch, size):
    """A backbone as it is trained and a head, norms fitted to its images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv-lite says what it lacks
        import mmcls.models

    torch.manual_seed(0)
    net = _Classifier(getattr(mmcls.models, name)(arch))
    images = torch.randn(16, 3, size, size)
    norms = [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    net.eval()  # not every backbone returns itself
    for norm in norms:
        norm.train()
        norm.momentum = None
        norm.reset_running_stats()
    with torch.no_grad():
        net(images)
    net.eval()
    return net, images


def _convolutions(artifact):
    """Convolutions in the graph that the runtime reads."""
    path = artifact.path / artifact.files["engine"]
    if path.suffix == ".onnx":
        import onnx

        return Counter(n.op_type for n in onnx.load(path).graph.node)["Conv"]
    import openvino

    found = Counter(op.get_type_name() for op in openvino.Core().read_model(path).get_ops())
    return found["Convolution"] + found["GroupConvolution"]


_SHALLOW = {
    "num_blocks": [1, 2, 2, 1],
    "width_factor": [0.75, 1.0, 1.0, 2.0],
    "num_conv_branches": [4, 4, 4, 4],
    "num_se_blocks": [0, 0, 0, 0],
}
_CASES = {
    "repvgg": ("RepVGG", "A0", 224, 0.99),
    "mobileone": ("MobileOne", "s0", 64, None),
    "shallow mobileone": ("MobileOne", _SHALLOW, 64, 0.99),
}
"""Class, arch, size of the images, least cosine. MobileOne of random weights amplifies the rounding of its very input:
its float model with nothing but that in 8 bits has a cosine of 0.97 at 224 pixels, and less at 64."""


@pytest.mark.parametrize("case", _CASES)
def test_train_form_becomes_the_deploy_form(case, tmp_path):
    pytest.importorskip("openvino", reason="needs openvino")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    name, arch, size, least = _CASES[case]
    net, images = _network(name, arch, size)
    deployed = copy.deepcopy(net)
    deployed.backbone.switch_to_deploy()
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in deployed.modules())
    names, before = list(dict(net.named_modules())), copy.deepcopy(net.state_dict())
    made = rd.ptq(
        net,
        list(images[:8].split(4)),
        example_inputs=(images[:2],),
        backend=("openvino", "onnxruntime"),
        out_dir=tmp_path,
    )
    assert names == list(dict(net.named_modules()))
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    expected = net(images[8:]).detach().numpy().ravel()
    for artifact in made.values():
        assert _convolutions(artifact) == convolutions
        engine = rd.load_engine(artifact)
        assert engine.coverage().planned == engine.coverage().int8 >= convolutions
        found = np.asarray(engine(images[8:].numpy())).ravel()
        assert np.isfinite(found).all()
        cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
        assert least is None or cosine > least


@pytest.mark.parametrize("offers", [True, False], ids=["its method", "the graph alone"])
def test_what_only_its_author_knows_is_done_by_the_method(offers, monkeypatch):
    """RepMLP puts convolutions over tokens into a fully connected layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmcls.models import RepMLPNet

    torch.manual_seed(0)
    arch = {"channels": [16, 32], "depths": [1, 1], "sharesets_nums": [1, 4]}
    net = RepMLPNet(arch, img_size=32, out_indices=(1,), reparam_conv_kernels=(1, 3)).eval()
    if not offers:
        monkeypatch.delattr(RepMLPNet, "switch_to_deploy")
    x = torch.randn(2, 3, 32, 32)
    captured = capture(net, (x,))
    convolutions = len([n for n in captured.graph.nodes if n.target is torch.ops.aten.conv2d.default])
    assert convolutions == (12 if offers else 14)
    assert not captured.warnings
    torch.testing.assert_close(captured.graph_module(x), net(x)[-1], rtol=1e-4, atol=1e-4)
    deployed = copy.deepcopy(net)
    for module in deployed.modules():
        if hasattr(module, "local_inject"):
            module.local_inject()
    again = capture(deployed, (x,))
    assert not again.warnings, "what was switched before is left alone"
    torch.testing.assert_close(again.graph_module(x), net(x)[-1], rtol=1e-4, atol=1e-4)
