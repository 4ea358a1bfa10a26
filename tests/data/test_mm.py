from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from razordeploy.errors import DataError, MissingDependency

pytest.importorskip("mmcls", reason="mmcls is not installed (pip install 'razordeploy[mmcls]')")

from razordeploy.data.mm import build_preprocessor, calibration_loader, mm_batches, registry_scope  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mmengine"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:pkg_resources"),
]

LOAD, PACK = {"type": "LoadImageFromFile"}, {"type": "PackClsInputs"}
TEST_PIPELINE = [LOAD, {"type": "CenterCrop", "crop_size": 16}, PACK]
TRAIN_PIPELINE = [LOAD, {"type": "RandomResizedCrop", "scale": 16}, {"type": "RandomFlip", "prob": 0.5}, PACK]
MEAN, STD = [120.0, 110.0, 100.0], [50.0, 60.0, 70.0]
PREPROCESSOR = {"type": "ClsDataPreprocessor", "mean": MEAN, "std": STD, "to_rgb": True}


def config(root: Path) -> dict[str, Any]:
    """Train and test dataloaders as an mmcls config has them."""

    def dataset(split: str, pipeline: list[dict[str, Any]]) -> dict[str, Any]:
        return {"type": "CustomDataset", "data_prefix": str(root / split), "pipeline": pipeline}

    return {
        "train_dataloader": {
            "batch_size": 2,
            "num_workers": 2,
            "persistent_workers": True,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "dataset": dataset("train", TRAIN_PIPELINE),
        },
        "test_dataloader": {"batch_size": 2, "num_workers": 0, "dataset": dataset("test", TEST_PIPELINE)},
    }


def expected(path: Path) -> torch.Tensor:
    """Centre 16x16 of the image at ``path``, normalised, without any OpenMMLab code."""
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)[2:18, 4:20]
    return torch.from_numpy(((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1).copy())


def test_evaluation_batches_are_the_models_own_preprocessing(image_root: Path) -> None:
    found = list(mm_batches(config(image_root)["test_dataloader"], build_preprocessor(PREPROCESSOR)))
    assert [len(b) for b in found] == [2, 2, 1]
    assert torch.cat([b.target for b in found]).tolist() == [0, 0, 0, 1, 1]
    assert found[0].names == tuple(str(image_root / "test" / "cat" / f"{i}.png") for i in range(2))
    for name, image in zip(found[1].names, found[1].inputs[0], strict=True):
        torch.testing.assert_close(image, expected(Path(name)), atol=1e-4, rtol=0)


def test_calibration_reads_training_images_through_the_test_pipeline(image_root: Path) -> None:
    loader = calibration_loader(config(image_root), batch_size=2)
    (first, second) = mm_batches(loader, build_preprocessor(PREPROCESSOR), num_samples=3)
    assert (len(first), len(second)) == (2, 1)
    for batch in (first, second):
        for name, image in zip(batch.names, batch.inputs[0], strict=True):
            assert Path(name).parts[-3] == "train"
            torch.testing.assert_close(image, expected(Path(name)), atol=1e-4, rtol=0)


def test_the_seed_decides_the_calibration_images(image_root: Path) -> None:
    def names(seed: int) -> list[str]:
        loader = calibration_loader(config(image_root))
        return [n for b in mm_batches(loader, None, num_samples=5, seed=seed) for n in b.names]

    assert names(0) == names(0)
    assert len({tuple(names(seed)) for seed in range(4)}) > 1


def test_wrapped_data_sets_keep_their_wrapper(image_root: Path) -> None:
    wrapped = config(image_root)
    inner = wrapped["train_dataloader"]["dataset"]
    wrapped["train_dataloader"]["dataset"] = {"type": "RepeatDataset", "times": 2, "dataset": inner}
    loader = calibration_loader(wrapped)
    assert loader["dataset"]["dataset"]["pipeline"] == TEST_PIPELINE
    assert inner["pipeline"] == TRAIN_PIPELINE
    assert sum(len(b) for b in mm_batches(loader, build_preprocessor(PREPROCESSOR))) == 10
    wrapped["train_dataloader"]["dataset"] = {"type": "ConcatDataset", "datasets": [inner, inner]}
    assert [d["pipeline"] for d in calibration_loader(wrapped)["dataset"]["datasets"]] == [TEST_PIPELINE] * 2


def test_a_built_loader_and_no_preprocessor(image_root: Path) -> None:
    from mmengine.runner import Runner

    with registry_scope("mmcls"):
        section = {"sampler": {"type": "DefaultSampler", "shuffle": False}, **config(image_root)["test_dataloader"]}
        loader = Runner.build_dataloader(section)
    batch = next(mm_batches(loader, None))
    assert batch.inputs[0].dtype == torch.uint8 and batch.inputs[0].shape == (2, 3, 16, 16)


def test_the_default_scope_is_put_back() -> None:
    from mmengine.registry import DefaultScope

    def name() -> str | None:
        current = DefaultScope.get_current_instance()
        return None if current is None else current.scope_name

    with DefaultScope.overwrite_default_scope("mmengine"):
        with registry_scope("mmcls"):
            assert name() == "mmcls"
        assert name() == "mmengine"


def test_an_unreadable_image_is_named(image_root: Path) -> None:
    (image_root / "test" / "dog" / "0.png").write_bytes(b"garbage")
    with pytest.raises(DataError, match=r"cannot read batch 1 .*dog/0\.png"):
        list(mm_batches(config(image_root)["test_dataloader"], build_preprocessor(PREPROCESSOR)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_prefix": "/does/not/exist"}, "cannot build the dataloader: FileNotFoundError.*/does/not/exist"),
        ({"type": "CustomDatset"}, "CustomDatset is not in the mmcls"),
        ({"pipeline": [{"type": "LoadImag"}]}, "LoadImag is not in the mmcls"),
    ],
)
def test_a_data_set_that_cannot_be_built(image_root: Path, change: dict[str, Any], message: str) -> None:
    loader = config(image_root)["test_dataloader"]
    loader["dataset"].update(change)
    with pytest.raises(DataError, match=message):
        next(mm_batches(loader, None))


def test_configs_without_training_data_or_test_pipeline(image_root: Path) -> None:
    with pytest.raises(DataError, match="expected train_dataloader"):
        calibration_loader({"test_dataloader": config(image_root)["test_dataloader"]})
    with pytest.raises(DataError, match="expected a test pipeline"):
        calibration_loader({"train_dataloader": config(image_root)["train_dataloader"]})


def test_items_that_are_no_mm_dict() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(2, 3)))
    with pytest.raises(DataError, match="batch 0: expected a dict with 'inputs' and 'data_samples', got list"):
        next(mm_batches(loader, None))


def test_a_scope_that_is_not_installed() -> None:
    with pytest.raises(MissingDependency, match="'mmnothing' is not installed"), registry_scope("mmnothing"):
        pass
