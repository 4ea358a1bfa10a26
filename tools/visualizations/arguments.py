"""The predecessor's flags of both scripts."""

from __future__ import annotations

import argparse
from typing import Any

from razordeploy.compress.distill.feature_maps import MapStyle


def parser(doc: str, positionals: tuple[str, ...]) -> argparse.ArgumentParser:
    """Positional arguments, then the flags."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in positionals:
        made.add_argument(name)
    made.add_argument("--out-file", default="features.png")
    made.add_argument("--use-norm", action="store_true", help="normalise each channel first")
    made.add_argument("--overlaid", action="store_true", help="draw over the image")
    made.add_argument("--channel-reduction", default=None, help="squeeze_mean, select_max or pixel_wise_max")
    made.add_argument("--topk", type=int, default=20)
    made.add_argument("--arrangement", type=int, nargs=2, default=(4, 5), metavar=("ROWS", "COLUMNS"))
    made.add_argument("--resize-shape", type=int, nargs=2, default=None, metavar=("HEIGHT", "WIDTH"))
    made.add_argument("--alpha", type=float, default=0.5)
    made.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    return made


def style(options: argparse.Namespace) -> MapStyle:
    """What the flags say of the maps."""
    keys: dict[str, Any] = {key: getattr(options, key) for key in ("topk", "use_norm", "overlaid", "alpha")}
    reduction = options.channel_reduction
    shape = tuple(options.resize_shape) if options.resize_shape else None
    return MapStyle(channel_reduction=reduction, arrangement=tuple(options.arrangement), resize_shape=shape, **keys)
