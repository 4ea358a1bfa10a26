"""JSON that every reader accepts: no NaN, no infinity, no NumPy."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from razordeploy.errors import UsageError


def json_text(value: Any) -> str:
    """Format ``value`` as strict JSON: NaN and infinity become null, NumPy scalars and arrays become numbers and lists.

    Raises:
        UsageError: a value that JSON has no word for; the message names its place.
    """
    return json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n"


def jsonable(value: Any, where: str = "value") -> Any:
    """Return ``value`` as plain dicts, lists, strings, finite numbers, booleans and None."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return Path(value).as_posix()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist(), where)
    raise UsageError(f"expected numbers, text, lists and dicts at {where}, got {type(value).__name__}")
