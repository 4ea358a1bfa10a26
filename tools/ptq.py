"""``python tools/ptq.py CONFIG [--work-dir D] [--cfg-options k=v ...]``: mmrazor's name of ``razordeploy ptq``."""

from __future__ import annotations

import sys

from razordeploy.cli.older_scripts import ptq

if __name__ == "__main__":
    ptq(sys.argv[1:])
