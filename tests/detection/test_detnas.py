"""DetNAS on mmdet's own detectors: a searchable backbone is trained, searched, fixed, and becomes int8 engines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from razordeploy.config.paths import recipes_dir, shipped_recipes
from razordeploy.config.recipe import load_recipe
from tests.detection.coco import draw, recipe
from tests.detection.test_distill_recipes import without_weights
from tests.detection.test_ptq import run

pytest.importorskip("mmdet", reason="mmdet is not installed: tools/detection_env.sh makes its environment")
pytest.importorskip("mmcv.ops", reason="mmcv has no operators here: tools/detection_env.sh makes its environment")
# What OpenMMLab's packages warn of is nothing that is tested here.
pytestmark = pytest.mark.filterwarnings("ignore")

RETINA = "nas/mmdet/detnas_retina_shufflenet_search_coco_1x.py"
SMALL = """
_blocks = dict(
    shuffle_3x3=dict(type="ShuffleBlock", kernel_size=3), shuffle_xception=dict(type="ShuffleXception")
)
_choice = dict(type="mmrazor.OneShotMutableOP", candidates=_blocks)
model = dict(
    architecture=dict(
        backbone=dict(arch_setting=[[w, 1, _choice] for w in (16, 16, 24, 32)], norm_cfg=dict(type="BN")),
        neck=dict(in_channels=[16, 16, 24, 32], out_channels=32, norm_cfg=None),
        bbox_head=dict(num_classes=2, in_channels=32, feat_channels=32, stacked_convs=1),
    )
)
train_cfg = dict(max_epochs=1, val_interval=10)
search = dict(constraints=dict(macs="99.9%"), max_epochs=1, num_candidates=4, top_k=2, num_mutation=2, num_crossover=2,
    recalibrate=16)
executor = dict(type="inline")
"""


def test_from_the_supernet_to_engines(tmp_path):
    draw(tmp_path, "train", 16)
    draw(tmp_path, "val", 8)
    file = recipe(tmp_path, "small.py", extra=SMALL)
    file.write_text(file.read_text().replace('"mmdet::small.py"', repr(str(recipes_dir() / RETINA))))
    net, found, sliced, engines = (tmp_path / name for name in ("net", "found", "sliced", "engines"))
    assert run("train", str(file), "--work-dir", str(net)) == 0
    assert run("search", str(file), "--checkpoint", str(net / "supernet.pth"), "--work-dir", str(found)) == 0
    report = json.loads((found / "report.json").read_text())
    assert report["search"]["score"] == "bbox_mAP"
    assert report["space"]["size"] == 16
    files = ["--subnet", str(found / "fix_subnet.yaml"), "--checkpoint", str(found / "subnet.pth")]
    assert run("export", str(file), *files, "--slice-weight", "--out", str(sliced)) == 0
    assert run("ptq", str(sliced), "--work-dir", str(engines), "--benchmark-seconds", "0") == 0
    for entry in json.loads((engines / "report.json").read_text())["backends"].values():
        assert entry["coverage"]["int8"] == entry["coverage"]["planned"] > 40


SUPERNETS = [name for name in shipped_recipes() if name.startswith("nas/mmdet/") and "_supernet_" in name]


def _losses(detector, packed):
    data = detector.data_preprocessor(packed, True)
    return detector.parse_losses(detector.loss(data["inputs"], data["data_samples"]))


@pytest.mark.parametrize("name", [pytest.param(n, id=Path(n).stem) for n in SUPERNETS])
def test_a_step_of_the_supernet_and_of_its_subnet(name):
    from mmdet.testing import demo_mm_inputs

    from razordeploy.compress.nas.train import build_supernet
    from razordeploy.subnet.fix import export_fix_subnet, load_fix_subnet

    torch.set_num_threads(1)
    loaded = load_recipe(name)
    without_weights(loaded.model)
    algorithm = build_supernet(loaded).train()
    assert len(algorithm.mutator.search_groups) == 20
    packed = demo_mm_inputs(2, [[3, 128, 128], [3, 128, 128]], num_classes=80)
    total, log = _losses(algorithm, packed)
    total.backward()
    assert {key.partition("_")[0] for key in log} >= {"loss"}
    chosen = algorithm.mutator.current_choices
    backbone = algorithm.architecture.backbone
    for path, mutable in backbone.named_modules():
        for candidate, block in getattr(mutable, "_candidates", {}).items():
            trained = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in block.parameters())
            assert trained is (candidate == mutable.current_choice), path
    content, static = export_fix_subnet(algorithm.architecture, "mutable", slice_weight=True)
    assert set(content) == {f"backbone.layers.{i}.{j}" for i, n in enumerate((4, 4, 8, 4)) for j in range(n)}
    assert sorted(entry["chosen"] for entry in content.values()) == sorted(chosen.values())
    # As another process would build it.
    other = build_supernet(loaded).architecture
    load_fix_subnet(other, content)
    other.load_state_dict(static.state_dict())
    images = torch.randn(1, 3, 128, 128)
    other, static = other.eval(), static.eval()
    expected = static.extract_feat(images)
    for mine, theirs in zip(other.extract_feat(images), expected, strict=True):
        assert torch.equal(mine, theirs)
    total, _ = _losses(other.train(), packed)
    assert total.requires_grad
    captured = torch.export.export(Features(static), (images,)).module()
    for mine, theirs in zip(captured(images), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


class Features(torch.nn.Module):
    """What of a detector is a static graph, whatever its stages."""

    def __init__(self, detector: torch.nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck = detector.backbone, detector.neck

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.neck(self.backbone(images))


def test_the_subnet_recipe(tmp_path):
    from mmdet.testing import demo_mm_inputs

    from razordeploy.compress.pruning.finetune import build_sub_model

    torch.set_num_threads(1)
    names = ["shuffle_3x3", "shuffle_xception", "shuffle_7x7", "shuffle_5x5"]
    chosen = {f"backbone.layers.{i}.{j}": names[(i + j) % 4] for i, n in enumerate((4, 4, 8, 4)) for j in range(n)}
    (tmp_path / "subnet.yaml").write_text("".join(f"{key}:\n  chosen: {name}\n" for key, name in chosen.items()))
    loaded = load_recipe(
        "nas/mmdet/detnas_frcnn_shufflenet_subnet_coco_1x.py", {"model.fix_subnet": repr(str(tmp_path / "subnet.yaml"))}
    )
    without_weights(loaded.model)
    detector = build_sub_model(loaded).train()
    assert list(detector.backbone.layers[0][2]._candidates) == ["shuffle_7x7"]
    total, log = _losses(detector, demo_mm_inputs(2, [[3, 128, 128], [3, 128, 128]], num_classes=80))
    total.backward()
    assert {"loss_cls", "loss_bbox", "loss_rpn_cls", "loss_rpn_bbox"} <= set(log)
    assert all(bool(p.grad is not None) for p in detector.backbone.parameters() if p.requires_grad)
