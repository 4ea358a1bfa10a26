"""``python tools/test.py ENGINE... [--recipe R] [--cfg-options k=v ...]``: the accuracy of engines that were made."""

from __future__ import annotations

import sys

from razordeploy.cli.main import main

if __name__ == "__main__":
    main(["evaluate", *("--set" if word == "--cfg-options" else word for word in sys.argv[1:])])
