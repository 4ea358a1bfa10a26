"""Candidates a second that a search holds against limits on multiply-accumulates and parameters.

    python tools/bench/search_costs.py [RECIPE ...] [--seconds 3]

The table of costs is filled first; then random subnets are drawn and looked up, the first hundred timed by themselves.
Random weights, one thread, CPU time.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import time

import torch

from razordeploy.capture.build import build_model
from razordeploy.compress.algorithm.build import build
from razordeploy.compress.nas.search.cost import SupernetCosts
from razordeploy.compress.nas.search.limits import Bounded, Limits
from razordeploy.compress.nas.search.space import SearchSpace
from razordeploy.config.recipe import load_recipe
from razordeploy.report.search_page import size_text
from razordeploy.subnet.mutators.table import MUTATORS

RECIPES = (
    "nas/digits/spos_supernet.py",
    "nas/digits/bignas_supernet.py",
    "nas/mmcls/spos_shufflenet_supernet_8xb128_in1k.py",
    "nas/mmcls/spos_mobilenet_supernet_8xb128_in1k.py",
    "nas/mmcls/attentive_mobilenet_supernet_32xb64_in1k.py",
    "nas/mmcls/ofa_mobilenet_supernet_32xb64_in1k.py",
    "nas/mmcls/autoformer_supernet_32xb256_in1k.py",
)

FIRST = 100


def measure(name: str, seconds: float) -> str:
    """One line of figures for the supernet of a recipe."""
    recipe = load_recipe(name)
    built = build_model(dataclasses.replace(recipe, checkpoint=None))
    mutator = build(recipe.model.get("mutator") or {"type": "NasMutator"}, MUTATORS, "mutator")
    mutator.prepare_from_supernet(built.module)
    space = SearchSpace.of_mutator(mutator)
    shape = (built.input_shapes or ((3, 224, 224),))[0]
    costs = SupernetCosts(built.module, mutator, (torch.zeros(1, *shape),))
    start = time.process_time()
    exact = costs.check(space)
    filled = time.process_time() - start
    bounded = Bounded(space, costs, Limits({"macs": (0.0, 1e9), "params": (0.0, 1e9)}))
    rng, counted, start, first = random.Random(1), costs.counted, time.process_time(), 0.0
    while time.process_time() - start < seconds or not first:
        bounded.sample(rng)
        if bounded.checked == FIRST:
            first = FIRST / (time.process_time() - start)
    rate = bounded.checked / (time.process_time() - start)
    low, high = bounded.reach("macs")
    return (
        f"{name:52} {size_text(space.size):>8} subnets, {low:.4g} to {high:.4g} M multiply-accumulates: {rate:7.0f} "
        f"candidates/s (the first {FIRST}: {first:.0f}), {costs.counted - counted} of {bounded.checked} counted in full"
        f"{'' if exact else ' (NO TABLE)'}; table filled in {filled:.1f} s"
    )


def main() -> None:
    """Print a line for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.recipes:
        print(measure(name, args.seconds), flush=True)


if __name__ == "__main__":
    main()
