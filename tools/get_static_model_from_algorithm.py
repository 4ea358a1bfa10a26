"""Slice what a pruning algorithm has decided: ``*_pruned.pth`` and ``*_pruned.json``."""

from __future__ import annotations

import argparse
from pathlib import Path

from razordeploy.cli.main import guarded


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="recipe of the algorithm")
    parser.add_argument("checkpoint", type=Path, help="its weights")
    parser.add_argument("-o", type=Path, help="folder; default: work_dirs/<recipe>")
    given = parser.parse_args()
    from razordeploy.cli.scripts import static_model

    for path in static_model(given.config, given.checkpoint, given.o):
        print(f"wrote {path}")


if __name__ == "__main__":
    guarded(_run)
