"""Slice a subnet out of a supernet: ``subnet_<time>.pth`` beside the supernet's checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from razordeploy.cli.main import guarded


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="recipe of the supernet")
    parser.add_argument("checkpoint", type=Path, help="the supernet's weights")
    parser.add_argument("yaml", type=Path, help="subnet file")
    parser.add_argument("--launcher", choices=["none"], default="none", help="one process does")
    parser.add_argument("--local_rank", type=int, default=0, help="not used")
    given = parser.parse_args()
    from razordeploy.cli.scripts import subnet_of_supernet

    print(f"wrote {subnet_of_supernet(given.config, given.checkpoint, given.yaml)}")


if __name__ == "__main__":
    guarded(_run)
