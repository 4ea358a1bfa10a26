"""Write a recipe that prunes a model by the L1 norm of its filters."""

from __future__ import annotations

import argparse
from pathlib import Path

from razordeploy.cli.main import guarded


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="recipe of the model")
    parser.add_argument("--checkpoint", help="weights that are pruned; default: the recipe's")
    parser.add_argument("--subnet", type=Path, help="width by unit; default: all, to be edited")
    parser.add_argument("-o", type=Path, default=Path("prune.py"), help="the new recipe")
    given = parser.parse_args()
    from razordeploy.cli.scripts import l1_config

    print(f"wrote {l1_config(given.config, given.checkpoint, given.subnet, given.o)}")


if __name__ == "__main__":
    guarded(_run)
