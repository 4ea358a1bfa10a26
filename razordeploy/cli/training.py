"""From a recipe to what its quantization-aware training runs on: data, loss and schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from razordeploy.capture.factory import resolve_factory
from razordeploy.cli.jobs import RecipeJob
from razordeploy.config.qat import NEVER, QATConfig
from razordeploy.config.recipe import Recipe
from razordeploy.data.base import Source, Subset
from razordeploy.data.boxes import Padded, resized, training_loader
from razordeploy.errors import DataError, RecipeError
from razordeploy.quantization.qat.loops import LOOPS
from razordeploy.quantization.qat.train import Training
from razordeploy.train.runner import optimizer_section


def training_of(job: RecipeJob, *, amp: bool = False, launcher: str = "none") -> Training:
    """The training that the recipe describes: with ``data`` its own, with ``train_dataloader`` OpenMMLab's.

    Raises:
        RecipeError: there is nothing to train on, or a section is wrong.
        DataError: the training data has no labels.
    """
    recipe = job.recipe
    if "onnx" in recipe.model:
        raise RecipeError(
            f"{recipe.path}: an ONNX file cannot be trained", hint="name the torch model that it was made of"
        )
    common = Training(config=_with_loop(recipe), seed=recipe.seed, amp=amp, launcher=launcher, teach=_teach(recipe.qat))
    if recipe.qat.loss is not None:
        common.losses = _loss(recipe, recipe.qat.loss)
    if recipe.data is not None:
        source = job.training_source()
        _check_labels(source, recipe)
        return replace(common, source=source if recipe.qat.samples is None else _part(source, recipe))
    if recipe.train_dataloader is None:
        raise RecipeError(
            f"{recipe.path}: no training data: quantization-aware training needs 'data' or 'train_dataloader', with "
            "labels",
            hint="data=dict(type='image_folder', root=...), or razordeploy ptq, which needs no labels",
        )
    if job.built.dense is not None:
        return replace(common, **_of_detector(job, common))
    head = getattr(job.built.module, "head", None)
    return replace(
        common,
        runner_config=_schedule(recipe),
        scope=job.scope,
        preprocess=job.built.preprocess,
        losses=common.losses or getattr(head, "_get_loss", None) or _labelled,
        predictions=getattr(head, "_get_predictions", None),
    )


def _of_detector(job: RecipeJob, common: Training) -> dict[str, Any]:
    """Images of the engine's size, and what the detector's head makes of its maps."""
    built, recipe = job.built, job.recipe
    assert built.dense is not None and built.preprocess is not None and built.input_shapes is not None
    shape = built.input_shapes[0]
    config = {**_schedule(recipe)}
    config["train_dataloader"] = {**config["train_dataloader"], **training_loader(recipe.config, shape)}
    if "batch_size" in (recipe.config.get("qat") or {}):
        config["train_dataloader"]["batch_size"] = recipe.qat.batch_size
    if config.get("val_dataloader"):
        config["val_dataloader"] = resized(config["val_dataloader"], shape)
    return {
        "runner_config": config,
        "scope": job.scope,
        "preprocess": Padded(built.preprocess, shape),
        "losses": common.losses or built.dense.losses,
        "predictions": built.dense.predictions,
    }


def _with_loop(recipe: Recipe) -> QATConfig:
    """The ``qat`` section; what it leaves open is that of the recipe's ``train_cfg``, if that is one of these loops."""
    loop: Mapping[str, Any] = recipe.config.get("train_cfg") or {}
    kind, given = str(loop.get("type", "")).rpartition(".")[2], recipe.config.get("qat") or {}
    if kind not in LOOPS:
        return recipe.qat
    wanted = {
        "epochs": loop.get("max_epochs", recipe.qat.epochs),
        "freeze_bn_begin": loop.get("freeze_bn_begin", NEVER),
        "disable_observer_begin": 1 if kind.startswith("LSQ") else loop.get("disable_observer_begin", NEVER),
    }
    return replace(recipe.qat, **{key: value for key, value in wanted.items() if key not in given})


def _teach(config: QATConfig) -> Callable[[Any, Any], Any] | None:
    if config.distill is None:
        return None
    from razordeploy.compress.algorithm.build import build
    from razordeploy.compress.distill.losses.table import LOSSES

    loss: Callable[[Any, Any], Any] = build(config.distill, LOSSES, "qat.distill")
    return loss


def _loss(recipe: Recipe, name: str) -> Callable[[Any, Any], Any]:
    function = resolve_factory(name, recipe.path.parent)

    def loss(outputs: Any, targets: Any) -> Any:
        try:
            return function(outputs, targets)
        except Exception as error:
            raise RecipeError(f"qat.loss '{name}' failed: {type(error).__name__}: {error}") from error

    return loss


def _labelled(outputs: Any, samples: Any) -> Any:
    """Cross entropy, for heads without a loss of their own."""
    import torch

    from razordeploy.train.classifier import classification_outputs

    targets = torch.cat([sample.gt_label.label for sample in samples]).to(outputs.device)
    return classification_outputs(outputs, targets, "loss")


def _part(source: Source, recipe: Recipe) -> Source:
    assert recipe.qat.samples is not None
    return Subset(source, recipe.qat.samples, recipe.seed)


def _check_labels(source: Source, recipe: Recipe) -> None:
    if len(source) == 0 or source[0][1] < 0:
        what = "no samples" if len(source) == 0 else "samples without labels"
        raise DataError(
            f"{recipe.path}: expected labelled training data, got {what} from {source.describe()}",
            hint="razordeploy ptq needs no labels",
        )


def _schedule(recipe: Recipe) -> dict[str, Any]:
    """The recipe's config; a ``qat`` section takes the place of its length and optimizer."""
    config: dict[str, Any] = dict(recipe.config)
    given: Mapping[str, Any] = config.get("qat") or {}
    loop, wrapper = dict(config.get("train_cfg") or {}), dict(config.get("optim_wrapper") or {})
    if {"epochs", "lr", "optimizer"} & given.keys() or not wrapper:
        loop["max_epochs"] = recipe.qat.epochs
        wrapper["optimizer"] = optimizer_section(recipe.qat.optimizer, recipe.qat.lr)
        config["param_scheduler"] = [
            {"type": "CosineAnnealingLR", "T_max": recipe.qat.epochs, "by_epoch": True, "convert_to_iter_based": True}
        ]
        config["auto_scale_lr"] = None
    if "batch_size" in given:
        config["train_dataloader"] = {**config["train_dataloader"], "batch_size": recipe.qat.batch_size}
    return {**config, "train_cfg": loop, "optim_wrapper": wrapper}
