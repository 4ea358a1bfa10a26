"""A small COCO-format data set: grey noise with bright rectangles and dark disks, and recipes that read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("rectangle", "disk")


def draw(root: Path, split: str, count: int, side: int = 96) -> Path:
    """Write ``root/<split>/*.png`` and ``root/<split>.json``; the file of annotations."""
    rng = np.random.default_rng({"train": 0, "val": 1}[split])
    folder = root / split
    folder.mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        image = Image.fromarray(rng.integers(90, 130, (side, side, 3), dtype=np.uint8))
        pen = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(1, 4))):
            w, h = (int(v) for v in rng.integers(side // 5, side // 2, 2))
            x, y = int(rng.integers(0, side - w)), int(rng.integers(0, side - h))
            kind = int(rng.integers(2))
            shape, colour = ((pen.rectangle, (230, 220, 60)), (pen.ellipse, (20, 40, 90)))[kind]
            shape((x, y, x + w, y + h), fill=colour)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": kind + 1, "bbox": [x, y, w, h]}
            )
        image.save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": side, "height": side})
    for annotation in annotations:
        annotation.update(area=annotation["bbox"][2] * annotation["bbox"][3], iscrowd=0)
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    file = root / f"{split}.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def recipe(root: Path, base: str, side: int = 96, extra: str = "") -> Path:
    """A recipe on an mmdet config whose data are the drawn ones."""
    text = f'''
_base_ = ["mmdet::{base}"]

_meta = dict(classes={CLASSES!r})
_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=({side}, {side}), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]


def _loader(split, batch_size):
    dataset = dict(
        _delete_=True,
        type="CocoDataset",
        data_root="{root}",
        ann_file=f"{{split}}.json",
        data_prefix=dict(img=f"{{split}}/"),
        metainfo=_meta,
        test_mode=split == "val",
        pipeline=_pipeline,
    )
    return dict(batch_size=batch_size, num_workers=0, persistent_workers=False, dataset=dataset)


train_dataloader = _loader("train", 4)
val_dataloader = _loader("val", 2)
test_dataloader = _loader("val", 2)
test_evaluator = dict(type="CocoMetric", ann_file="{root}/val.json", metric="bbox")
val_evaluator = test_evaluator
calibration = dict(num_samples=16)
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, {side}, {side}), max_drop=100.0)
{extra}
'''
    file = root / f"{Path(base).stem}.py"
    file.write_text(text)
    return file
