"""mmrazor's ``tools/train.py``, ``test.py`` and ``ptq.py``: its flags as the words of our verbs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from razordeploy.config.mm_quant import is_quantized_architecture
from razordeploy.config.paths import RECIPE_SUFFIXES
from razordeploy.errors import RazorDeployError

_RANK = ("--local_rank", "--local-rank")
_SEARCHES = ("EvolutionSearchLoop", "AutoSlimGreedySearchLoop")


def train(words: Sequence[str]) -> None:
    """``CONFIG [--work-dir D] [--amp] [--auto-scale-lr] [--resume] [--cfg-options k=v ...] [--launcher L]``.

    Trains; a config of ``MMArchitectureQuant`` is trained on the engine's grids, and one whose loop searches is
    searched.
    """
    _run(words, _train_words)


def ptq(words: Sequence[str]) -> None:
    """``CONFIG [--work-dir D] [--cfg-options k=v ...]``, and the options of ``razordeploy ptq``."""
    _run(words, lambda given: ["ptq", *_without(given, "--launcher")])


def test(words: Sequence[str]) -> None:
    """``CONFIG CHECKPOINT [--cfg-options k=v ...]``: the accuracy of a model in torch; ``none``: of its own weights.

    Of ``MMArchitectureQuant`` that of the quantized model too. Engines in the place of CONFIG are measured as they are.
    """
    _run(words, _test_words)


def _run(words: Sequence[str], translate: Callable[[list[str]], list[str]]) -> None:
    from razordeploy.cli.main import guarded, main

    guarded(lambda: main(translate(_translated(words))))


def _train_words(given: list[str]) -> list[str]:
    if "--auto-scale-lr" in given:
        given.remove("--auto-scale-lr")
        given += ["--set", "auto_scale_lr.enable=True"]
    verb = _verb(given)
    if verb == "train":
        return ["train", *given]
    # Both go on by themselves where they were stopped.
    kept = [word for word in given if word != "--resume"]
    return [verb, *(_without([w for w in kept if w != "--amp"], "--launcher") if verb == "search" else kept)]


def _test_words(given: list[str]) -> list[str]:
    recipe, *rest = given or ["--help"]
    if Path(recipe).suffix not in RECIPE_SUFFIXES:
        return ["evaluate", *given]
    checkpoint = rest.pop(0) if rest and not rest[0].startswith("-") else "none"
    own = [] if checkpoint.lower() == "none" else ["--checkpoint", checkpoint]
    return ["evaluate", recipe, *own, *_without(rest, "--work-dir", "--launcher")]


def _translated(words: Sequence[str]) -> list[str]:
    found, left = [], list(words)
    while left:
        word = left.pop(0)
        name, _, value = word.partition("=")
        if name in _RANK:
            if not value and left:
                left.pop(0)
        elif word == "--cfg-options":
            found.append("--set")
        elif word == "--resume" and left and left[0] == "auto":
            left.pop(0)
            found.append(word)
        else:
            found.append(word)
    return found


def _without(words: Sequence[str], *names: str) -> list[str]:
    found, left = [], list(words)
    while left:
        word = left.pop(0)
        name, equals, _ = word.partition("=")
        if name not in names:
            found.append(word)
        elif not equals and left:
            left.pop(0)
    return found


def _config(recipe: str) -> dict[str, Any] | None:
    """The config; None where it cannot be read, which the verb says better."""
    from razordeploy.config.recipe import load_recipe

    try:
        return dict(load_recipe(recipe).config)
    except RazorDeployError:
        return None


def _verb(words: Sequence[str]) -> str:
    recipe = next((word for word in words if Path(word).suffix in RECIPE_SUFFIXES), None)
    config = None if recipe is None else _config(recipe)
    if config is None:
        return "train"
    if is_quantized_architecture(config.get("model")):
        return "qat"
    loop = str((config.get("train_cfg") or {}).get("type")).rpartition(".")[2]
    return "search" if loop in _SEARCHES else "train"
