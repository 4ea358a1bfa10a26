"""``python tools/ptq.py RECIPE [--work-dir D] [--cfg-options k=v ...]``: mmrazor's name of ``razordeploy ptq``."""

from __future__ import annotations

import sys

from razordeploy.cli.main import main

if __name__ == "__main__":
    main(["ptq", *("--set" if word == "--cfg-options" else word for word in sys.argv[1:])])
