"""The deployed graph alone, of a checkpoint of mmrazor's quantization."""

from __future__ import annotations

import argparse
from pathlib import Path

from razordeploy.cli.main import guarded


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out-path", type=Path, help="default: beside the checkpoint")
    parser.add_argument("--inplace", action="store_true", help="replace the checkpoint")
    given = parser.parse_args()
    from razordeploy.integrations.checkpoints import convert

    print(f"wrote {convert(given.checkpoint, 'quantized', given.out_path, inplace=given.inplace)}")


if __name__ == "__main__":
    guarded(_run)
