"""Subnet files: JSON and YAML mappings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from razordeploy.errors import ModelError, StorageError
from razordeploy.strict_json import json_text, jsonable


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a JSON or YAML file that holds a mapping.

    Raises:
        ModelError: there is no such file, it cannot be parsed, or it holds something else.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError as error:
        raise ModelError(f"no such file: {file}") from error
    except (json.JSONDecodeError, yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{file}: cannot be read as JSON or YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: expected a mapping, got {type(content).__name__}")
    return content


def write_mapping(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, or as YAML where the name ends in ``.yaml`` or ``.yml``.

    Raises:
        UsageError: a value that a file has no word for.
        StorageError: the file cannot be written.
    """
    file = Path(path)
    text = yaml_text(content) if file.suffix in (".yaml", ".yml") else json_text(jsonable(content))
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}") from error


def yaml_text(content: Mapping[str, Any]) -> str:
    """A mapping as YAML, in its own order.

    Raises:
        UsageError: a value that a file has no word for.
    """
    text: str = yaml.safe_dump(jsonable(content), sort_keys=False)
    return text
