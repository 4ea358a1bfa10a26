"""mmengine's ``Config``, read so that whatever goes wrong in it is one line with the file and the line."""

from __future__ import annotations

import contextlib
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from razordeploy import lazy
from razordeploy.config.older_bases import find_base, is_older_base
from razordeploy.config.paths import RECIPE_SUFFIXES
from razordeploy.errors import MissingDependency, RazorDeployError, RecipeError

_EXTRAS = {"mmcls": "mmcls", "mmpretrain": "openmmlab"}
_READERS = {"_file2dict", "_parse_lazy_import", "_is_lazy_import", "_validate_py_syntax", "_get_base_files"}


def read_config(path: Path, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Read a config with its bases and merge ``options`` (dotted keys) into it.

    A python config runs its own code; a YAML or JSON one runs none.

    Returns:
        The resolved config as plain dictionaries, and the text of the config and its bases.

    Raises:
        RecipeError: it cannot be read, parsed, run or merged.
        MissingDependency: it builds on a package that is not installed.
    """
    if path.suffix not in RECIPE_SUFFIXES:
        raise RecipeError(f"expected a recipe that ends in {', '.join(RECIPE_SUFFIXES)}, got '{path}'")
    lazy.require("mmengine", extra="mmcls")
    from mmengine.config import Config

    try:
        with _safe_yaml(), _older_bases(Config), _silent(), warnings.catch_warnings():
            # mmengine looks its bases up through pkg_resources, which warns about itself each time.
            warnings.filterwarnings("ignore", message=".*pkg_resources.*")
            config = Config.fromfile(path)
    except RecipeError as error:
        _close_copies(error)
        raise RecipeError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        _close_copies(error)
        raise _one_line(error, path) from error
    _merge(config, options, path)
    return config.to_dict(), config.text


def _merge(config: Any, options: Mapping[str, Any], path: Path) -> None:
    key = ""
    try:
        for key, value in options.items():
            config.merge_from_dict({key: value}, allow_list_keys=True)
    except Exception as error:
        raise RecipeError(f"--set {key}: it does not fit '{path}': {_text(error)}") from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    # mmengine logs each environment variable that it fills in, on each reading.
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _safe_yaml() -> Iterator[None]:
    # mmengine reads YAML with the loader that runs python tags.
    import yaml
    from mmengine.fileio.handlers import yaml_handler

    loader = yaml_handler.Loader
    yaml_handler.Loader = yaml.SafeLoader
    try:
        yield
    finally:
        yaml_handler.Loader = loader


@contextlib.contextmanager
def _older_bases(config: Any) -> Iterator[None]:
    """Let bases of mmrazor, which is not installed, be the shipped ones; what they name has its scope already."""
    original = config.__dict__["_get_cfg_path"]

    def get(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if is_older_base(cfg_path):
            return str(find_base(cfg_path)), None
        found: tuple[str, str | None] = original.__func__(cfg_path, filename)
        return found

    config._get_cfg_path = staticmethod(get)
    try:
        yield
    finally:
        config._get_cfg_path = original


def _close_copies(error: BaseException) -> None:
    # When a config fails, mmengine leaves its temporary copy open, and python warns of it at some later moment.
    for frame, _ in traceback.walk_tb(error.__traceback__):
        copy = frame.f_locals.get("temp_config_file")
        if copy is not None:
            copy.close()


def _one_line(error: BaseException, path: Path) -> RazorDeployError:
    file, line = _location(error, path)
    if isinstance(error, ModuleNotFoundError):
        if error.name == "pkg_resources":
            return MissingDependency(
                "mmengine finds other packages' configs through pkg_resources, which setuptools 82 removed",
                hint="pip install 'setuptools<82'",
            )
        package = str(error).partition(" is not installed")[0]
        if package in _EXTRAS:
            return MissingDependency(
                f"{file} builds on '{package}', which is not installed",
                hint=f"pip install 'razordeploy[{_EXTRAS[package]}]'",
            )
    at = f"{file}:{line}" if line else str(file)
    if isinstance(error, FileNotFoundError) and line is None:
        missing = error.filename or str(error).removeprefix("file ").removesuffix(" does not exist").strip('"')
        return RecipeError(f"{path}: no base config '{missing}'", hint="check _base_")
    if isinstance(error, AttributeError) and line is None and file.suffix != ".py":
        return RecipeError(f"{file}: expected a mapping of sections at the top", hint="see the shipped recipes")
    if isinstance(error, SyntaxError):
        return RecipeError(f"{at}: syntax error: {error.msg}")
    if isinstance(error, UnicodeDecodeError):
        return RecipeError(f"{at}: expected UTF-8 text, got other bytes at position {error.start}")
    return RecipeError(f"{at}: {type(error).__name__}: {_text(error)}")


def _location(error: BaseException, path: Path) -> tuple[Path, int | None]:
    """The file of the recipe or of a base that ``error`` comes from, and the line in it."""
    file, line = path, None
    for frame, lineno in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_name
        reading = frame.f_locals.get("filename")
        if name in _READERS and isinstance(reading, str) and not _is_temporary(reading, file):
            file, line = Path(reading), None
        elif name == "<module>" and frame.f_code.co_filename == str(file):
            line = lineno
    if isinstance(error, SyntaxError):
        line = error.lineno
    return file, line


def _is_temporary(reading: str, file: Path) -> bool:
    # mmengine parses a copy of the file, with its placeholders filled in, whose name says nothing to the user.
    return not Path(reading).exists() and file.exists()


def _text(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return " ".join(line.strip() for line in lines[:3]) or "no message"
