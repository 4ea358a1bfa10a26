"""From a template with ``{}`` fields to the command of one trial."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from razordeploy.errors import RecipeError, nearest
from razordeploy.hpo.args import Arg, File, Nested

RESERVED = ("trial", "trial_dir", "seed", "python")
"""Fields that every template may use: the trial's number, its folder, its seed, this python."""
_IN_FILE = re.compile(r"\{([A-Za-z_][\w.]*)\}")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One trial's command, and the files that have to lie in its folder first."""

    words: tuple[str, ...]
    files: Mapping[str, str]
    """Name in the trial's folder -> content."""


def check_template(template: str, args: Mapping[str, Arg], file: str) -> None:
    """Hold the fields of ``template``, and of the templates in ``args``, against the search arguments.

    Raises:
        RecipeError: a field without an argument, an argument that no field uses, a template that cannot be read.
    """
    for name in args:
        if name in RESERVED:
            raise RecipeError(f"{file}: search_args.{name}: the field {{{name}}} is taken", hint="give it another name")
    used = set()
    for name in _fields(_words(template, file), file):
        if name not in args and name not in RESERVED:
            raise RecipeError(
                f"{file}: task.template has the field {{{name}}}, and search_args no '{name}'",
                hint=nearest(name, [*args, *RESERVED]),
            )
        used.add(name)
    for name, arg in args.items():
        if isinstance(arg, File):
            used |= {field for field in _IN_FILE.findall(arg.text) if field in args}
        if isinstance(arg, Nested):
            _check_options(name, arg, file)
    unused = [name for name in args if name not in used]
    if unused:
        hint = f"write {{{unused[0]}}} where its value belongs, or take it out of search_args"
        raise RecipeError(
            f"{file}: search_args has '{unused[0]}', and task.template no field {{{unused[0]}}}", hint=hint
        )


def _check_options(name: str, arg: Nested, file: str) -> None:
    for option, branch in arg.options.items():
        used = set(_fields(_words(branch.text, file), file))
        where = f"search_args.{name}.options.{option}"
        for field in used - set(RESERVED):
            if field not in branch.args:
                hint = nearest(field, [*branch.args, *RESERVED])
                raise RecipeError(
                    f"{file}: {where}.text has the field {{{field}}}, and its args no '{field}'", hint=hint
                )
        for key, inner in branch.args.items():
            if key not in used:
                raise RecipeError(f"{file}: {where}.args has '{key}', and its text no field {{{key}}}")
            if isinstance(inner, Nested):
                _check_options(f"{name}.options.{option}.args.{key}", inner, file)
            if isinstance(inner, File):
                raise RecipeError(f"{file}: {where}.args.{key}: a File cannot be inside an option")


def render(template: str, args: Mapping[str, Arg], values: Mapping[str, Any], fixed: Mapping[str, str]) -> Command:
    """The command of one trial.

    Args:
        template: the task's; words are split as a shell would, before any value is put in, so that no value needs
            quotes and none can add words.
        args: the search arguments.
        values: what the searcher chose.
        fixed: values of the ``RESERVED`` fields.
    """
    texts: dict[str, Any] = {**fixed, **{name: _text(args[name], value, fixed) for name, value in values.items()}}
    files = {}
    for name, arg in args.items():
        if isinstance(arg, File):
            texts[name] = f"{fixed['trial_dir']}/{arg.template.name}"
            files[arg.template.name] = _IN_FILE.sub(lambda m: str(texts.get(m[1], m[0])), arg.text)
    words: list[str] = []
    for word in _words(template, "task.template"):
        field = _whole_field(word)
        if field is not None and isinstance(args.get(field), Nested):
            words += shlex.split(texts[field])
        else:
            words.append(_fill(word, texts))
    return Command(words=tuple(words), files=files)


def _text(arg: Arg, value: Any, fixed: Mapping[str, str]) -> Any:
    """What stands for the field: numbers and strings as they are, so that ``{lr:.3g}`` works."""
    if isinstance(arg, Nested):
        option = arg.options[value["option"]]
        inner = {**fixed, **{key: _text(option.args[key], value[key], fixed) for key in option.args}}
        return shlex.join(word for part in _words(option.text, "") for word in _expand(part, option.args, inner))
    return json.dumps(value) if isinstance(value, list | dict) else value


def _expand(word: str, args: Mapping[str, Arg], texts: Mapping[str, Any]) -> list[str]:
    field = _whole_field(word)
    if field is not None and isinstance(args.get(field), Nested):
        return shlex.split(texts[field])
    return [_fill(word, texts)]


def _fill(word: str, texts: Mapping[str, Any]) -> str:
    done = ""
    for literal, field, spec, _ in Formatter().parse(word):
        done += literal
        if field is not None:
            done += format(texts[field], spec or "") if spec else str(texts[field])
    return done


def _whole_field(word: str) -> str | None:
    parts = list(Formatter().parse(word))
    return parts[0][1] if len(parts) == 1 and not parts[0][0] else None


def _words(template: str, file: str) -> list[str]:
    try:
        return shlex.split(template)
    except ValueError as error:
        raise RecipeError(f"{file}: cannot split {template!r} into words: {error}", hint="close the quote") from error


def _fields(words: list[str], file: str) -> Iterator[str]:
    for word in words:
        try:
            parts = list(Formatter().parse(word))
        except ValueError as error:
            hint = "write {{ and }} for braces that are no field"
            raise RecipeError(f"{file}: cannot read the fields of {word!r}: {error}", hint=hint) from error
        for _, field, _, _ in parts:
            if field == "":
                raise RecipeError(f"{file}: a field without a name in {word!r}", hint="write {{}} for plain braces")
            if field is not None:
                yield field
