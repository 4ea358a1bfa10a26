"""Feature maps of one model as a PNG. IMG: a file, or the number of a test image of the recipe's data."""

from __future__ import annotations

import sys
from pathlib import Path

from arguments import parser, style

from razordeploy.cli.features import run
from razordeploy.errors import RazorDeployError


def main() -> None:
    """Draw, and say where."""
    o = parser(__doc__ or "", ("img", "config", "vis_config", "checkpoint")).parse_args()
    overrides = dict(option.split("=", 1) for option in o.cfg_options)
    try:
        file = run(
            o.img,
            [o.config],
            o.vis_config,
            [o.checkpoint],
            out_file=Path(o.out_file),
            style=style(o),
            overrides=overrides,
        )
    except RazorDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
