"""A recipe: the python (or YAML, or JSON) file that says which model is compressed, how, and for what."""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from razordeploy.config.executor import ExecutorConfig
from razordeploy.config.mm_config import read_config
from razordeploy.config.mm_quant import is_quantized_architecture, own_sections
from razordeploy.config.paths import resolve_recipe
from razordeploy.config.qat import QATConfig
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.config.search import SearchConfig
from razordeploy.config.sections import CalibrationConfig, DeployConfig
from razordeploy.config.stages import StageConfig, parse_stages
from razordeploy.config.strict import Section, check_regex
from razordeploy.config.structure import PruneConfig, SubnetConfig
from razordeploy.errors import RecipeError

ONNX_SUFFIX = ".onnx"
_LOADERS = ("calibrate_dataloader", "val_dataloader", "test_dataloader", "train_dataloader")
_DICTS = (*_LOADERS, "data", "train")
OWN_KEYS = (
    *("model", "checkpoint", "key_mapping", "strict", "trust_checkpoint", "quantize", "qat", "deploy", "calibration"),
    *("data_root", "seed", "work_dir", "executor", "search", "prune", "subnet", "pipeline", *_DICTS),
)
MM_KEYS = (
    *("data_preprocessor", "dataset_type", "default_scope", "default_hooks", "custom_hooks", "custom_imports"),
    *("env_cfg", "vis_backends", "visualizer", "log_level", "log_processor", "launcher", "load_from", "resume"),
    *("randomness", "optim_wrapper", "param_scheduler", "auto_scale_lr", "runner_type", "tta_model", "tta_pipeline"),
    *("train_cfg", "val_cfg", "test_cfg", "train_pipeline", "val_pipeline", "test_pipeline"),
    *("val_evaluator", "test_evaluator", "model_wrapper_cfg", "sync_buffers", "dist_params", "experiment_name"),
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recipe, checked; dictionaries that other libraries read are kept as they were written."""

    name: str
    """The file's name without its suffix."""
    path: Path
    text: str
    """Text of the file and of its bases, for the report."""
    config: dict[str, Any]
    """Everything the recipe resolves to, including what only mmengine reads."""
    model: dict[str, Any]
    """``type`` (a registered name, or ``pkg.module:factory``) and its arguments; or ``onnx``, the path of a file."""
    checkpoint: str | None = None
    key_mapping: dict[str, str] = field(default_factory=dict)
    """Regular expression -> replacement, applied in order to every key of the checkpoint."""
    strict: bool = True
    """True: every key and shape of the checkpoint has to match the model."""
    trust_checkpoint: bool = False
    """True: the checkpoint may run code while it is loaded."""
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    qat: QATConfig = field(default_factory=QATConfig)
    deploy: DeployConfig = field(default_factory=DeployConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    prune: PruneConfig | None = None
    """What of the model is deployed, by a rule; None: all of it."""
    subnet: SubnetConfig | None = None
    """What of the model is deployed, by a file; None: all of it."""
    pipeline: tuple[StageConfig, ...] = ()
    """Stages of ``razordeploy run``, in order."""
    data: dict[str, Any] | None = None
    calibrate_dataloader: dict[str, Any] | None = None
    val_dataloader: dict[str, Any] | None = None
    test_dataloader: dict[str, Any] | None = None
    train_dataloader: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    search: SearchConfig | None = None
    """What is searched for in the model, a supernet; None: nothing."""
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    """Where candidates and trials run."""
    seed: int = 0
    work_dir: str | None = None

    @property
    def model_name(self) -> str:
        """What the model is called in reports: its type, or the name of its ONNX file."""
        if is_quantized_architecture(self.model):
            return str(self.model["architecture"].get("type", self.model["type"]))
        return Path(self.model["onnx"]).name if "onnx" in self.model else str(self.model["type"])

    @property
    def is_onnx_file(self) -> bool:
        """True where there is no recipe, only a model: it says nothing about data or limits."""
        return self.path.suffix.lower() == ONNX_SUFFIX

    def fingerprint(self) -> str:
        """SHA-256 of the resolved config; where it runs and where results go does not count."""
        counted = {key: value for key, value in self.config.items() if key not in ("work_dir", "executor")}
        return hashlib.sha256(json.dumps(counted, sort_keys=True, default=_stable).encode()).hexdigest()


def load_recipe(path: str | Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: a file, or the name of a shipped recipe (``ptq/x.py``); an ONNX file is a recipe of that model alone.
        overrides: dotted key -> value as text (``--set deploy.max_drop=0.5``); values are read as python literals
            where they are some, and as strings otherwise.

    Raises:
        RecipeError: anything in it that cannot be read, is unknown or of the wrong type.
        MissingDependency: it builds on a package that is not installed.
    """
    options = {key: _literal(value) for key, value in (overrides or {}).items()}
    _check_options(options)
    if Path(path).suffix.lower() == ONNX_SUFFIX:
        return _of_onnx(Path(path).expanduser(), options)
    file = resolve_recipe(path)
    before = read_config(file, {})[0].get("data_root") if "data_root" in options else None
    config, text = read_config(file, options)
    _check_top(config, options, str(file))
    _spread_data_root(config, before)
    return _recipe(file, config, text)


def _recipe(file: Path, config: dict[str, Any], text: str) -> Recipe:
    name = str(file)
    config = own_sections(config, name)
    top = Section(values=config, file=name, where="recipe")
    strict, trust = top.boolean("strict"), top.boolean("trust_checkpoint")
    prune, subnet = config.get("prune"), config.get("subnet")
    if isinstance(prune, dict):
        # mmengine leaves it where there was nothing to replace.
        prune.pop("_delete_", None)
    if prune is not None and subnet is not None:
        raise RecipeError(f"{name}: 'prune' and 'subnet' both say what is deployed", hint="keep one")
    return Recipe(
        name=file.stem,
        path=file,
        text=text,
        config=config,
        model=_model(config, name),
        checkpoint=_checkpoint(top, config.get("model")),
        key_mapping=_key_mapping(config.get("key_mapping"), name),
        strict=True if strict is None else strict,
        trust_checkpoint=bool(trust),
        quantize=QuantizeConfig.parse(_or_empty(config, "quantize"), name),
        qat=QATConfig.parse(_or_empty(config, "qat"), name),
        deploy=DeployConfig.parse(_or_empty(config, "deploy"), name),
        calibration=CalibrationConfig.parse(_or_empty(config, "calibration"), name),
        search=SearchConfig.of_recipe(config, name),
        executor=ExecutorConfig.parse(_or_empty(config, "executor"), name),
        prune=None if prune is None else PruneConfig.parse(prune, name),
        subnet=None if subnet is None else SubnetConfig.parse(subnet, name),
        pipeline=parse_stages(config["pipeline"], name) if _has_stages(config) else (),
        seed=top.integer("seed", low=0, high=2**32 - 1) or 0,
        work_dir=top.string("work_dir"),
        **{key: _raw(config, key, name) for key in _DICTS},
    )


def _has_stages(config: Mapping[str, Any]) -> bool:
    """Whether ``pipeline`` is ours: OpenMMLab's configs call a list of data transforms so."""
    value = config.get("pipeline")
    transforms = isinstance(value, list | tuple) and all(isinstance(x, Mapping) and "type" in x for x in value)
    return value is not None and not (value and transforms)


def _checkpoint(top: Section, model: object) -> str | None:
    """The recipe's weights; a config's own variable of that name, which its ``init_cfg`` goes back to, is none."""
    checkpoint = top.string("checkpoint")
    return None if checkpoint is not None and _initialises(model, checkpoint) else checkpoint


def _initialises(value: object, checkpoint: str) -> bool:
    if isinstance(value, Mapping):
        own = value.get("init_cfg")
        if isinstance(own, Mapping) and own.get("checkpoint") == checkpoint:
            return True
        return any(_initialises(inner, checkpoint) for inner in value.values())
    return isinstance(value, list | tuple) and any(_initialises(inner, checkpoint) for inner in value)


def _of_onnx(file: Path, options: Mapping[str, Any]) -> Recipe:
    if not file.is_file():
        raise RecipeError(f"expected an ONNX file at {file}, found {'a folder' if file.is_dir() else 'nothing'}")
    file = file.resolve()
    config: dict[str, Any] = {"model": {"onnx": str(file)}}
    _check_top(config, options, str(file))
    for key, value in options.items():
        *sections, name = key.split(".")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise RecipeError(f"--set {key}: '{section}' is a value, not a section")
        place[name] = value
    return _recipe(file, config, "")


def _or_empty(config: Mapping[str, Any], key: str) -> Any:
    value = config.get(key)
    return {} if value is None else value


def _raw(config: Mapping[str, Any], key: str, file: str) -> dict[str, Any] | None:
    value = config.get(key)
    if value is not None and not isinstance(value, dict):
        raise RecipeError(f"{file}: expected a dict for '{key}', got {type(value).__name__}")
    return value


def _model(config: Mapping[str, Any], file: str) -> dict[str, Any]:
    model = _raw(config, "model", file)
    if model is None:
        raise RecipeError(f"{file}: no 'model' section", hint="write model=dict(type='pkg.module:factory', ...)")
    if "onnx" in model:
        Section.of(model, file, "model", ("onnx",)).string("onnx")
        return model
    kind = model.get("type")
    if not isinstance(kind, str) or not kind:
        raise RecipeError(
            f"{file}: 'model' needs a type, got {kind!r}",
            hint="type='pkg.module:factory', the name of a registered classifier such as 'ImageClassifier', or "
            "onnx='model.onnx'",
        )
    return model


def _key_mapping(value: object, file: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(x, str) for pair in value.items() for x in pair):
        raise RecipeError(f"{file}: expected a dict of regex -> replacement for 'key_mapping', got {value!r}")
    for pattern in value:
        check_regex(pattern, file, "key_mapping")
    return dict(value)


def _check_top(config: Mapping[str, Any], options: Mapping[str, Any], file: str) -> None:
    """Refuse a top-level key that looks like a misspelt one, and a ``--set`` that nothing would read."""
    for key in map(str, config):
        close = difflib.get_close_matches(key, OWN_KEYS, n=1, cutoff=0.8)
        if close and key not in OWN_KEYS and key not in MM_KEYS and not key.startswith("_"):
            raise RecipeError(
                f"{file}: unknown key '{key}' (did you mean '{close[0]}'?)",
                hint="start it with '_' if it is a variable of your own",
            )
    for key in options:
        top = key.partition(".")[0]
        if top not in OWN_KEYS and top not in MM_KEYS:
            raise RecipeError(
                f"--set {key}: nothing reads '{top}'",
                hint="variables of a recipe are used before --set; set the key they end up in, such as deploy.max_drop",
            )


def _check_options(options: Mapping[str, Any]) -> None:
    for key in options:
        if not all(key.split(".")):
            raise RecipeError(f"--set expects key.sub=value, got '{key}={options[key]}'")


def _spread_data_root(config: dict[str, Any], before: str | None) -> None:
    """Give the recipe's ``data_root`` to every dataset without one, and after ``--set`` to those that had the old one.

    A recipe is run before ``--set`` is merged, so that the variable alone would change nothing.
    """
    root = config.get("data_root")
    if root is None:
        return
    for key in _LOADERS:
        loader = config.get(key)
        dataset = loader.get("dataset") if isinstance(loader, dict) else None
        if isinstance(dataset, dict) and not {"dataset", "datasets"} & dataset.keys():
            own = dataset.get("data_root")
            if own is None or own == before:
                dataset["data_root"] = root


def _literal(value: str) -> Any:
    named = {"true": True, "false": False, "none": None, "null": None}
    if value.strip().lower() in named:
        return named[value.strip().lower()]
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _stable(value: object) -> str:
    """Text of what JSON cannot hold, without memory addresses."""
    if isinstance(value, set | frozenset):
        return repr(sorted(map(repr, value)))
    if isinstance(value, type) or callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return repr(value)
