"""What ``ptq``, ``qat`` and ``analyze`` share: the recipe that they are asked for, opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from razordeploy.cli.deploying import checked_backends
from razordeploy.cli.given import resolve
from razordeploy.cli.jobs import RecipeJob, with_images
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.job import PTQJob

J = TypeVar("J", bound=PTQJob)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A recipe, its model and data, and what the user said beside it."""

    recipe: Recipe
    overrides: Mapping[str, str]
    checkpoint: Path | None
    backends: list[str]
    job: RecipeJob
    work_dir: Path

    @classmethod
    def open(
        cls,
        recipe: str,
        *,
        backends: Sequence[str] | None,
        checkpoint: Path | None,
        work_dir: Path | None,
        overrides: Mapping[str, str],
        trust: bool,
        data: Path | None,
        switch: bool = True,
    ) -> Asked:
        """Read the recipe and build its model.

        Args:
            recipe: a recipe, or an artifact's folder that holds a model.
            backends: None: the recipe's.
            checkpoint: float weights, in place of the recipe's.
            work_dir: None: the recipe's, or ``work_dirs/<recipe>``.
            overrides: values of the recipe by dotted key.
            trust: let the checkpoint run code while it loads.
            data: a folder of images, in place of the recipe's data.
            switch: as ``build_model``.

        Raises:
            RazorDeployError: any of these is wrong.
        """
        path, overrides = resolve(recipe, overrides)
        read = load_recipe(path, overrides)
        if data is not None:
            overrides = with_images(read, overrides, data)
            read = load_recipe(path, overrides)
        names = checked_backends(read.deploy.backends if backends is None else backends)
        return cls(
            recipe=read,
            overrides=overrides,
            checkpoint=checkpoint,
            backends=names,
            job=RecipeJob.open(read, checkpoint, trust=trust, switch=switch),
            work_dir=work_dir or Path(read.work_dir or Path("work_dirs") / read.name),
        )

    def as_job(self, kind: type[J], work_dir: Path, *, first: bool = True, **more: Any) -> J:
        """The pipeline's job.

        Args:
            kind: of job.
            work_dir: the folder that this run holds.
            first: False for the other processes of a distributed run, which measure and keep nothing.
            more: its other fields.
        """
        job, recipe = self.job, self.recipe
        return kind(
            model=job.built.module,
            example_inputs=job.example_inputs(),
            calibration=job.calibration,
            evaluation=job.evaluation if first and job.has_evaluation() else None,
            metric=job.metric(),
            backends=self.backends,
            work_dir=work_dir,
            quantize=recipe.quantize,
            deploy=job.deploy,
            calibration_samples=recipe.calibration.num_samples,
            data_fingerprint=job.data_fingerprint() if first else None,
            origin={
                "recipe": str(recipe.path.resolve()),
                "overrides": dict(self.overrides),
                "checkpoint": None if self.checkpoint is None else str(self.checkpoint.resolve()),
            },
            **more,
        )

    def report(self) -> dict[str, Any]:
        """What the report says of the recipe."""
        return {
            "model": self.recipe.model_name,
            "recipe": str(self.recipe.path),
            "seed": self.recipe.seed,
            "calibration": {"source": self.job.data_text()},
            "evaluation": {"source": self.job.evaluation_text()},
        }
