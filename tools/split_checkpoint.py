"""``python tools/split_checkpoint.py RECIPE CKPT --channel-cfgs F... [--output-dir D]``: one checkpoint per subnet."""

from __future__ import annotations

import sys

from razordeploy.cli.main import main

if __name__ == "__main__":
    main(["split-checkpoint", *sys.argv[1:]])
