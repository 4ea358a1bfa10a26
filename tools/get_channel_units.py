"""``python tools/get_channel_units.py RECIPE [-c] [-i] [--choice] [-o F]``: ``razordeploy channel-units``."""

from __future__ import annotations

import sys

from razordeploy.cli.main import main

if __name__ == "__main__":
    main(["channel-units", *sys.argv[1:]])
