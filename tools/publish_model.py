"""Write a checkpoint's weights alone, under a name with their SHA-256."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from razordeploy.cli.main import guarded


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ckpt", type=Path, help="checkpoint")
    parser.add_argument("--model-name", help="default: the checkpoint's name")
    parser.add_argument("--timestamp", help="of the training; default: now")
    parser.add_argument("--out-dir", type=Path, default=Path(), help="folder; default: the working directory")
    given = parser.parse_args()
    from razordeploy.cli.scripts import publish

    stamp = given.timestamp or time.strftime("%Y%m%d_%H%M%S")
    print(f"wrote {publish(given.ckpt, given.model_name or given.ckpt.stem, stamp, given.out_dir)}")


if __name__ == "__main__":
    guarded(_run)
