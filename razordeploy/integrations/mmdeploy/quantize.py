"""From the intermediate file that mmdeploy exports to an int8 engine under the names that its scripts expect."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from razordeploy.artifact import Artifact
from razordeploy.backends.loaded import only_engine
from razordeploy.errors import RecipeError, UsageError, nearest
from razordeploy.integrations.mmdeploy.algorithms import TRAINED

_OPTIONS = ("engine", "quantize", "max_drop")
_SUFFIXES = {"openvino": ".xml", "onnxruntime": ".onnx", "tensorrt": ".engine"}


def engine_files(backend: str, ir_file: Path, work_dir: Path, deploy_cfg: Any) -> Path:
    """Make the engine of ``ir_file`` and return the file that a wrapper is built from.

    A deploy config with ``razordeploy = dict(engine=...)`` names a finished engine, trained or calibrated by
    razordeploy's own verbs; a checkpoint of ``MMArchitectureQuant`` has left one in the work dir. One with
    ``calib_config`` is calibrated here, with the images that mmdeploy has written.
    Any other file is converted as it is, pairs included.

    Args:
        backend: ``openvino``, ``onnxruntime`` or ``tensorrt``.
        ir_file: the ``.onnx``; where the engine is an ONNX file too, the float one is kept as ``<name>_float.onnx``.
        work_dir: gets the engine, and razordeploy's own folder and report in ``razordeploy/``.
        deploy_cfg: mmdeploy's.
    """
    options = _options(deploy_cfg)
    trained = work_dir / TRAINED
    if "engine" in options:
        made = _finished(backend, Path(options["engine"]))
    elif trained.is_dir():
        made = _finished(backend, trained)
    else:
        calibration = _calibration_file(work_dir, deploy_cfg)
        quantized = _is_quantized(ir_file)
        if calibration is not None and not quantized:
            made = _calibrated(backend, ir_file, work_dir, calibration, {**options, **_batches(deploy_cfg)})
        else:
            made = _converted(backend, ir_file, work_dir, deploy_cfg)
    return _placed(backend, made, ir_file, work_dir)


def _options(deploy_cfg: Any) -> dict[str, Any]:
    options = dict((deploy_cfg or {}).get("razordeploy") or {})
    for key in options:
        if key not in _OPTIONS:
            raise RecipeError(f"deploy config: unknown key '{key}' in 'razordeploy'", hint=nearest(key, _OPTIONS))
    return options


def _finished(backend: str, path: Path) -> Artifact:
    inside = path / backend
    artifact = Artifact.load(inside if (inside / "manifest.json").is_file() else only_engine(path))
    artifact.verify()
    if artifact.params.get("backend") != backend:
        raise UsageError(f"{artifact.path} is an engine of '{artifact.params.get('backend')}', not of '{backend}'")
    return artifact


def _calibration_file(work_dir: Path, deploy_cfg: Any) -> Path | None:
    from mmdeploy.utils import get_calib_filename

    name = get_calib_filename(deploy_cfg)
    path = None if name is None else work_dir / name
    if path is not None and not path.is_file():
        raise UsageError(
            f"the deploy config asks for a calibration, and {path} is not there",
            hint="tools/deploy.py writes it; calib_config = dict(create_calib=False) leaves the engine in float",
        )
    return path


def _is_quantized(ir_file: Path) -> bool:
    from razordeploy.capture.onnx_import.file import quantized_node, read_onnx

    return quantized_node(read_onnx(ir_file)) is not None


def _calibrated(backend: str, ir_file: Path, work_dir: Path, calibration: Path, options: Mapping[str, Any]) -> Artifact:
    from razordeploy.api import ptq
    from razordeploy.capture.onnx_import.file import read_onnx, specs
    from razordeploy.integrations.mmdeploy.calibration import CalibrationFile

    inputs, _ = specs(read_onnx(ir_file))
    images = CalibrationFile(calibration, [spec.name for spec in inputs])
    batch = inputs[0].shape[0] if inputs[0].shape else None
    _logger().info(f"razordeploy: int8 for {backend}, calibrated on {images.count} images of {calibration}")
    artifact = ptq(
        ir_file,
        images,
        example_inputs=images.first(batch or 2),
        backend=backend,
        out_dir=work_dir / "razordeploy",
        quantize=dict(options.get("quantize") or {}),
        deploy={
            "dynamic_batch": batch is None,
            **{key: options[key] for key in ("batch_size", "max_batch", "max_drop") if key in options},
        },
    )
    _tell(backend, work_dir)
    return artifact


def _converted(backend: str, ir_file: Path, work_dir: Path, deploy_cfg: Any) -> Artifact:
    """The file as it is: float without a calibration, int8 where it holds pairs."""
    from razordeploy.config.sections import DeployConfig
    from razordeploy.conversion import ConvertJob, run_convert
    from razordeploy.data.batch import Batch
    from razordeploy.source import OnnxSource

    shape = _fixed_shape(ir_file, deploy_cfg)
    section = DeployConfig.parse({} if shape is None else {"input_shape": shape}, "mmdeploy")
    source = OnnxSource.open(ir_file, section)
    result = run_convert(
        ConvertJob(
            backends=[backend],
            work_dir=work_dir / "razordeploy",
            calibration=lambda: [Batch(source.samples, None)],
            deploy=section,
            benchmark_seconds=0,
            source=source,
        )
    )
    entry = result.backends[backend]
    for failure in entry.get("failures", ()):
        _logger().error(f"razordeploy: {failure}")
    _tell_missing(backend, entry)
    return result.artifacts[backend]


def _batches(deploy_cfg: Any) -> dict[str, int]:
    """Batch sizes of the deploy config's first input, which an engine for a range of them is built for."""
    models = (deploy_cfg or {}).get("backend_config", {}).get("model_inputs") or [{}]
    shapes: Mapping[str, Any] = next(iter(models[0].get("input_shapes", {}).values()), {})
    named = (("batch_size", "opt_shape"), ("max_batch", "max_shape"))
    return {key: int(shapes[shape][0]) for key, shape in named if shape in shapes}


def _fixed_shape(ir_file: Path, deploy_cfg: Any) -> tuple[int, ...] | None:
    """``(C, H, W)`` of the deploy config, for a file that leaves the image size open; None where it does not."""
    from mmdeploy.utils import get_input_shape

    from razordeploy.capture.onnx_import.file import read_onnx, specs

    inputs, _ = specs(read_onnx(ir_file))
    given = get_input_shape(deploy_cfg)  # width, height
    if not given or len(inputs) != 1 or len(inputs[0].shape) != 4 or None not in inputs[0].shape[2:]:
        return None
    return int(inputs[0].shape[1] or 3), int(given[1]), int(given[0])


def _placed(backend: str, made: Artifact, ir_file: Path, work_dir: Path) -> Path:
    """Copy the engine to where mmdeploy's scripts look for it."""
    target = work_dir / ir_file.with_suffix(_SUFFIXES[backend]).name
    graph = made.files.get("onnx", made.files["engine"] if backend == "onnxruntime" else None)
    if graph is not None:
        kept = ir_file.with_name(f"{ir_file.stem}_float.onnx")
        if made.stage != "convert":
            shutil.copyfile(ir_file, kept)
        shutil.copyfile(made.path / graph, work_dir / f"{ir_file.stem}.onnx")
    if "engine" not in made.files:
        return work_dir / f"{ir_file.stem}.onnx"
    if backend != "onnxruntime":
        shutil.copyfile(made.file("engine"), target)
    if "engine_weights" in made.files:
        weights = made.file("engine_weights")
        shutil.copyfile(
            weights, target.with_suffix(weights.suffix) if backend == "openvino" else work_dir / weights.name
        )
    return target


def _tell(backend: str, work_dir: Path) -> None:
    from razordeploy.report.write import read_report

    folder = work_dir / "razordeploy"
    entry = read_report(folder)["backends"][backend]
    covered = entry.get("coverage", {})
    _logger().info(
        f"razordeploy: {covered.get('int8')} of {covered.get('planned')} planned operations run in int8; "
        f"report: {folder / 'report.html'}"
    )
    _tell_missing(backend, entry)


def _tell_missing(backend: str, entry: Mapping[str, Any]) -> None:
    if "missing" in entry:
        _logger().error(f"razordeploy: no {backend} engine was built: {entry['missing']}")
        _logger().error(f"razordeploy: the graph is ready; build it with: {entry.get('build', '')}")


def _logger() -> logging.Logger:
    from mmdeploy.utils import get_root_logger

    logger: logging.Logger = get_root_logger()
    return logger
