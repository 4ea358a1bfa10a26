"""``razordeploy convert``: a model as it is, on other engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from razordeploy.artifact import Artifact
from razordeploy.backends.loaded import only_engine
from razordeploy.capture.export import capture
from razordeploy.capture.onnx_import.file import is_onnx
from razordeploy.cli.deploying import checked_backends, deploy
from razordeploy.cli.jobs import RecipeJob, with_images
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.conversion import ConvertJob, run_convert
from razordeploy.data.batch import Batch
from razordeploy.errors import UsageError
from razordeploy.job import Progress, PTQResult
from razordeploy.source import ModelSource, OnnxSource, Source

_ROLES = ("onnx", "engine", "graph", "model")
"""Roles under which an artifact may hold an ONNX file; the first that does is taken."""


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What MODEL turned out to be: an ONNX file, or a recipe with its weights."""

    name: str
    onnx: Path | None = None
    recipe: Recipe
    """That of the model, or the one that says which data it is held against."""
    checkpoint: Path | None = None
    overrides: Mapping[str, str]


def run(
    model: str,
    *,
    backends: Sequence[str] | None,
    checkpoint: Path | None,
    work_dir: Path | None,
    overrides: Mapping[str, str],
    recipe: str | None,
    data: Path | None,
    command: str,
    threads: int,
    benchmark_seconds: float,
    trust: bool,
) -> int:
    """Convert ``model`` and return the exit code, as ``razordeploy ptq`` does.

    Without ``recipe`` and ``data`` the engines are held against their source on random inputs.
    """
    given = _given(model, checkpoint, overrides, recipe, data)
    names = checked_backends(given.recipe.deploy.backends if backends is None else backends)
    source, job = _opened(given, trust)
    labelled = job.has_evaluation()

    def samples() -> Iterable[Batch]:
        return job.evaluation() if labelled else [Batch(source.samples, None)]

    def convert(folder: Path, progress: Progress, before_replacing: Callable[[], None]) -> PTQResult:
        return run_convert(
            ConvertJob(
                source=source,
                backends=names,
                work_dir=folder,
                calibration=samples,
                evaluation=job.evaluation if labelled else None,
                metric=job.metric(),
                deploy=job.deploy,
                threads=threads,
                benchmark_seconds=benchmark_seconds,
                origin=_origin(given),
                progress=progress,
                before_replacing=before_replacing,
            )
        )

    return deploy(
        convert,
        work_dir or Path("work_dirs") / Path(given.name).stem,
        names,
        command=command,
        report={"model": given.name, "recipe": None if given.recipe.is_onnx_file else str(given.recipe.path)},
    )


def _given(
    model: str, checkpoint: Path | None, overrides: Mapping[str, str], recipe: str | None, data: Path | None
) -> _Given:
    path = Path(model).expanduser()
    if is_onnx(path):
        _no_checkpoint(checkpoint, path)
        return _with_data(path.name, path, recipe or str(path), overrides, data)
    if path.is_dir() or path.name == "manifest.json":
        artifact = Artifact.load(only_engine(path))
        artifact.verify()
        _no_checkpoint(checkpoint, artifact.path)
        return _of_artifact(artifact, overrides, recipe, data)
    found = _with_data(path.stem, None, model, overrides, data)
    onnx = found.recipe.model.get("onnx")
    if onnx is None:
        return _Given(name=found.recipe.name, recipe=found.recipe, checkpoint=checkpoint, overrides=found.overrides)
    _no_checkpoint(checkpoint, onnx)
    file = Path(onnx).expanduser()
    beside = found.recipe.path.parent / onnx
    return _Given(
        name=found.recipe.name,
        onnx=beside if not file.exists() and beside.exists() else file,
        recipe=found.recipe,
        overrides=found.overrides,
    )


def _of_artifact(artifact: Artifact, overrides: Mapping[str, str], recipe: str | None, data: Path | None) -> _Given:
    name = artifact.path.resolve().name
    roles = [role for role in _ROLES if artifact.files.get(role, "").endswith(".onnx")]
    made_of = artifact.params.get("recipe")
    options = {**artifact.params.get("overrides", {}), **overrides}
    if roles:
        file = artifact.file(roles[0])
        known = recipe or (made_of if made_of and Path(made_of).is_file() and not is_onnx(made_of) else None)
        return _with_data(name, file, known or str(file), options if known == made_of else overrides, data)
    weights = next((artifact.file(role) for role in ("checkpoint", "weights") if role in artifact.files), None)
    if made_of is None or weights is None or artifact.kind == "engine":
        hint = f"razordeploy ptq {made_of} --backend ..." if made_of else "convert the model that it was made of"
        raise UsageError(
            f"{artifact.path} cannot be converted: the '{artifact.kind}' artifact holds no ONNX file, and no "
            f"checkpoint with a recipe (files: {', '.join(sorted(artifact.files.values()))})",
            hint=hint,
        )
    found = _with_data(name, None, recipe or made_of, options, data)
    return _Given(name=name, recipe=found.recipe, checkpoint=weights, overrides=found.overrides)


def _with_data(
    name: str, onnx: Path | None, recipe_path: str, overrides: Mapping[str, str], data: Path | None
) -> _Given:
    recipe = load_recipe(recipe_path, overrides)
    if data is not None:
        overrides = with_images(recipe, overrides, data)
        recipe = load_recipe(recipe_path, overrides)
    return _Given(name=name, onnx=onnx, recipe=recipe, overrides=overrides)


def _no_checkpoint(checkpoint: Path | None, model: object) -> None:
    if checkpoint is not None:
        raise UsageError(f"{model} holds its own weights, got the checkpoint '{checkpoint}' too")


def _opened(given: _Given, trust: bool) -> tuple[Source, RecipeJob]:
    if given.onnx is not None:
        source = OnnxSource.open(given.onnx, given.recipe.deploy)
        return source, RecipeJob.for_engine(given.recipe, source.samples, source.outputs)
    job = RecipeJob.open(given.recipe, given.checkpoint, trust=trust)
    captured = capture(job.built.module, job.example_inputs(), dynamic_batch=given.recipe.deploy.dynamic_batch)
    return ModelSource.of(captured, job.deploy), job


def _origin(given: _Given) -> dict[str, Any]:
    """What the manifest says of where the engine came from; a recipe only where there is one to evaluate it with."""
    origin: dict[str, Any] = {"overrides": dict(given.overrides)}
    if given.onnx is not None:
        origin["source"] = str(given.onnx.resolve())
    if not given.recipe.is_onnx_file or given.recipe.data is not None:
        origin["recipe"] = str(given.recipe.path.resolve())
    if given.checkpoint is not None:
        origin["checkpoint"] = str(given.checkpoint.resolve())
    return origin
