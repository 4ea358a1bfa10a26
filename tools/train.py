"""``python tools/train.py RECIPE [--work-dir D] [--cfg-options k=v ...]``: mmrazor's name of ``razordeploy train``."""

from __future__ import annotations

import sys

from razordeploy.cli.main import main

if __name__ == "__main__":
    main(["train", *("--set" if word == "--cfg-options" else word for word in sys.argv[1:])])
