"""FLOPs (two for each multiply-accumulate), MACs, parameters and activations of a recipe's model for one image."""

from __future__ import annotations

import argparse

from razordeploy.cli.main import guarded


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="recipe")
    parser.add_argument("-H", type=int, default=224, help="height of the image")
    parser.add_argument("-W", type=int, default=224, help="width of the image")
    given = parser.parse_args()
    from razordeploy.cli.scripts import as_json, resources

    print(as_json(resources(given.config, given.H, given.W)))


if __name__ == "__main__":
    guarded(_run)
