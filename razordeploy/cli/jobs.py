"""From a recipe to what the pipeline runs: model, example inputs and data streams."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from razordeploy.artifact import TensorSpec
from razordeploy.assemble import assemble
from razordeploy.capture.build import BuiltModel
from razordeploy.capture.factory import resolve_factory
from razordeploy.config.recipe import Recipe
from razordeploy.config.sections import DeployConfig
from razordeploy.data.base import Source
from razordeploy.data.batch import Batch
from razordeploy.data.boxes import box_batches
from razordeploy.data.loader import batches
from razordeploy.data.mm import calibration_loader, dataset_meta, mm_batches
from razordeploy.data.sources import build_source
from razordeploy.errors import DataError, ModelError, RazorDeployError, RecipeError, UsageError
from razordeploy.train.boxes import BoxMetric, evaluator_section

EVALUATION_BATCH = 100


@dataclass(frozen=True, kw_only=True)
class RecipeJob:
    """A recipe brought to life."""

    recipe: Recipe
    built: BuiltModel
    boxes: dict[int, Any] = field(default_factory=dict)
    """Of detectors: number of an evaluation image -> its data sample, filled while the images are read."""

    @classmethod
    def open(
        cls, recipe: Recipe, checkpoint: str | Path | None = None, *, trust: bool = False, switch: bool = True
    ) -> RecipeJob:
        """Build the model that the recipe deploys, with its weights; ``switch`` as ``build_model``."""

        def inputs(built: BuiltModel) -> tuple[torch.Tensor, ...]:
            return cls(recipe=recipe, built=built).example_inputs()

        return cls(recipe=recipe, built=assemble(recipe, checkpoint, trust=trust, inputs=inputs, switch=switch))

    @classmethod
    def for_engine(cls, recipe: Recipe, inputs: tuple[torch.Tensor, ...], outputs: Sequence[TensorSpec]) -> RecipeJob:
        """The data of ``recipe`` for a model that is run elsewhere and takes ``inputs``.

        The recipe's own model is built only where its preprocessing belongs to the data.
        """
        if recipe.data is None and "onnx" not in recipe.model:
            return cls.open(recipe)
        built = BuiltModel(
            module=torch.nn.Identity(),
            preprocess=None,
            input_shapes=tuple(tuple(x.shape[1:]) for x in inputs),
            example_inputs=inputs,
            classifies=[len(spec.shape) for spec in outputs] == [2],
        )
        return cls(recipe=recipe, built=built)

    @property
    def scope(self) -> str:
        """Package whose registry the recipe's dataloaders are built from."""
        return str(self.recipe.config.get("default_scope") or "mmcls")

    @property
    def deploy(self) -> DeployConfig:
        """The recipe's section, with the names that the model has where it gives none."""
        deploy, built = self.recipe.deploy, self.built
        return replace(
            deploy,
            input_names=deploy.input_names or built.input_names,
            output_names=deploy.output_names or built.output_names,
        )

    def calibration(self) -> Iterable[Batch]:
        """Open the calibration stream: training images without augmentation, a seeded subset."""
        recipe, wanted = self.recipe, self.recipe.calibration
        if recipe.data is not None:
            source = self._source(wanted.split)
            return batches(source, wanted.batch_size or 32, limit=wanted.num_samples, seed=recipe.seed, shuffle=True)
        loader = recipe.calibrate_dataloader
        if loader is None:
            if recipe.train_dataloader is None:
                raise RecipeError(
                    f"{recipe.path}: nothing to calibrate on: no data, calibrate_dataloader or train_dataloader",
                    hint="give --data FOLDER of images, or data=dict(type='image_folder', root=...)",
                )
            loader = calibration_loader(recipe.config, wanted.batch_size or 32)
        elif wanted.batch_size:
            loader = {**loader, "batch_size": wanted.batch_size}
        return self._mm(loader, wanted.num_samples)

    def has_calibration(self) -> bool:
        """Tell whether the recipe names data to calibrate on."""
        recipe = self.recipe
        return any(x is not None for x in (recipe.data, recipe.calibrate_dataloader, recipe.train_dataloader))

    def has_evaluation(self) -> bool:
        """Tell whether the recipe names labelled data; images beside an ONNX file are labelled for a classifier."""
        if self.recipe.is_onnx_file and not self.built.classifies and self.recipe.deploy.metric == "top1":
            return False
        return self.recipe.data is not None or self._test_loader() is not None

    def evaluation(self) -> Iterable[Batch]:
        """Open the evaluation stream: the test split, in order."""
        if self.recipe.data is not None:
            return batches(self._source("test"), EVALUATION_BATCH)
        loader = self._test_loader()
        if loader is None:
            raise RecipeError(
                f"{self.recipe.path}: no data, test_dataloader or val_dataloader to evaluate on",
                hint="add data=dict(type='image_folder', root=...)",
            )
        return self._mm(loader, None, self.boxes)

    def _mm(self, loader: dict[str, Any], limit: int | None, keep: dict[int, Any] | None = None) -> Iterable[Batch]:
        built, seed = self.built, self.recipe.seed
        if built.dense is None:
            return mm_batches(loader, built.preprocess, limit, seed, self.scope)
        assert built.preprocess is not None and built.input_shapes is not None
        return box_batches(loader, built.preprocess, built.input_shapes[0], num_samples=limit, seed=seed, keep=keep)

    def training_source(self) -> Source:
        """The training split of ``data``."""
        return self._source("train")

    def _source(self, split: str) -> Source:
        assert self.recipe.data is not None
        data = self._fitting(self.recipe.data) if self.recipe.is_onnx_file else self.recipe.data
        try:
            return build_source(data, split, self.recipe.path.parent)
        except (RazorDeployError, MemoryError):
            raise
        except Exception as error:  # a function of the user's own may raise anything
            kind = self.recipe.data.get("type")
            raise DataError(f"data '{kind}' failed for the {split} split: {type(error).__name__}: {error}") from error

    def _fitting(self, data: dict[str, Any]) -> dict[str, Any]:
        """Images of the model's own size, where nobody has said how they are resized and cropped."""
        shape = (self.built.input_shapes or ((),))[0]
        if data.get("type") != "image_folder" or {"resize", "crop"} & data.keys() or len(shape) != 3:
            return data
        return {**data, "resize": round(max(shape[1:]) / 0.875), "crop": tuple(shape[1:])}

    def _test_loader(self) -> dict[str, Any] | None:
        return self.recipe.test_dataloader or self.recipe.val_dataloader

    def metric(self) -> Any:
        """The metric's name, or the function that ``pkg.module:function`` names."""
        name = self.recipe.deploy.metric
        if ":" not in name:
            return name if self.built.dense is None else self._box_metric()
        try:
            function = resolve_factory(name, self.recipe.path.parent)
        except ModelError as error:
            raise RecipeError(f"deploy.metric '{name}' cannot be imported: {error}") from error

        def metric(outputs: Any, targets: Any) -> Any:
            try:
                return function(outputs, targets)
            except Exception as error:
                raise RecipeError(f"deploy.metric '{name}' failed: {type(error).__name__}: {error}") from error

        return metric

    def _box_metric(self) -> Any:
        if self._test_loader() is None or self.built.dense is None:
            return "top1"
        config = self.recipe.config
        meta = dataset_meta(self._test_loader() or {}, self.scope)
        return BoxMetric(evaluator_section(config, str(self.recipe.path)), meta, self.built.dense.decode, self.boxes)

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """The model's own, random inputs of the recipe's shapes, or else the first calibration samples."""
        if self.built.example_inputs is not None:
            return self.built.example_inputs
        shapes = self.built.input_shapes
        if shapes is None:
            first = next(iter(self.calibration()), None)
            if first is None:
                raise UsageError("the calibration data is empty", hint="check the recipe's data section")
            return tuple(x[:2] for x in first.inputs)
        generator = torch.Generator().manual_seed(self.recipe.seed)
        return tuple(torch.randn(2, *shape, generator=generator) for shape in shapes)

    def data_fingerprint(self) -> str:
        """Identity of the calibration stream, for the statistics cache."""
        recipe, wanted = self.recipe, self.recipe.calibration
        content: dict[str, Any] = {"samples": wanted.num_samples, "batch": wanted.batch_size, "seed": recipe.seed}
        if recipe.data is not None:
            content["source"] = self._source(wanted.split).fingerprint()
        else:
            content["loader"] = repr(recipe.calibrate_dataloader or recipe.train_dataloader)
        # Neither sees what a function of the user's own, or a file of the same size, now yields.
        first = next(iter(self.calibration()), None)
        if first is not None:
            content["first"] = hashlib.sha256(b"".join(x.numpy().tobytes() for x in first.inputs)).hexdigest()
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def data_text(self) -> str:
        """What is calibrated on, in words."""
        if self.recipe.data is not None:
            return self._source(self.recipe.calibration.split).describe()
        return "calibrate_dataloader" if self.recipe.calibrate_dataloader is not None else "train_dataloader"

    def evaluation_text(self) -> str:
        """What is evaluated on, in words; empty where nothing is."""
        if self.recipe.data is not None:
            return self._source("test").describe()
        names = ("test_dataloader", "val_dataloader")
        return next((name for name in names if getattr(self.recipe, name)), "")


def with_images(recipe: Recipe, overrides: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The overrides that let ``recipe`` read the images in ``folder``."""
    kind = {} if recipe.data else {"data.type": "image_folder"}
    return {**overrides, **kind, "data.root": repr(str(folder))}
