"""``python tools/test.py CONFIG CHECKPOINT [--cfg-options k=v ...]``, or ``ENGINE...``: ``razordeploy evaluate``."""

from __future__ import annotations

import sys

from razordeploy.cli.older_scripts import test

if __name__ == "__main__":
    test(sys.argv[1:])
