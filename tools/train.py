"""``python tools/train.py CONFIG [--work-dir D] [--resume] [--cfg-options k=v ...]``: mmrazor's name of ``train``."""

from __future__ import annotations

import sys

from razordeploy.cli.older_scripts import train

if __name__ == "__main__":
    train(sys.argv[1:])
