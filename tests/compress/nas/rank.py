"""One of two processes of test_processes.py, or the one to compare with: python rank.py {0,1,alone} DIRECTORY."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from nets import Elastic, batch, diff_chain, one_hot_chain, one_shot_chain
from torch import distributed

from razordeploy.compress.algorithm.step import AlgorithmDDP
from razordeploy.compress.nas.algorithms.bignas import BigNAS
from razordeploy.compress.nas.algorithms.darts import Darts, TwoBatches
from razordeploy.compress.nas.algorithms.dsnas import DSNAS
from razordeploy.compress.nas.algorithms.spos import SPOS

RECORD = {"out": {"type": "ModuleOutputs", "source": "fc2"}}
DISTILLER = {
    "teacher_recorders": RECORD,
    "student_recorders": RECORD,
    "distill_losses": {"loss_kl": {"type": "KLDivergence"}},
    "loss_forward_mappings": {
        "loss_kl": {
            "preds_S": {"recorder": "out", "from_student": True},
            "preds_T": {"recorder": "out", "from_student": False},
        }
    },
}
ALGORITHMS = {
    "spos": lambda: SPOS(architecture=one_shot_chain()),
    "bignas": lambda: BigNAS(architecture=Elastic(), distiller=DISTILLER),
    "darts": lambda: Darts(architecture=diff_chain(), unroll=False),
    "darts_unrolled": lambda: Darts(architecture=diff_chain(), unroll=True),
    "dsnas": lambda: DSNAS(architecture=one_hot_chain()),
}


class Keep(torch.optim.SGD):
    """Takes no step, and keeps the gradients that it would have taken it by."""

    kept = None

    def step(self, closure=None):
        self.kept = [None if p.grad is None else p.grad.clone() for g in self.param_groups for p in g["params"]]


def gradients(name, rows, seed):
    """The gradients of one step on ``rows`` of the batch, drawn by ``seed``."""
    torch.manual_seed(0)
    algorithm = ALGORITHMS[name]().double()
    optimizers = {"architecture": Keep(algorithm.architecture.parameters(), lr=0.1)}
    wrapper = OptimWrapper(optimizers["architecture"])
    data = [part[rows] for part in batch(8, dtype=torch.float64)]
    if list(algorithm.mutator.parameters()):
        optimizers["mutator"] = Keep(algorithm.mutator.parameters(), lr=0.1)
        wrapper = OptimWrapperDict(architecture=wrapper, mutator=OptimWrapper(optimizers["mutator"]))
    if name.startswith("darts"):
        data = TwoBatches(data, [part[rows] for part in batch(8, seed=1, dtype=torch.float64)])
    # What a run on several processes is wrapped in.
    model = AlgorithmDDP(algorithm) if distributed.is_initialized() else algorithm
    random.seed(seed)
    torch.manual_seed(seed)
    model.train_step(data, wrapper)
    return {part: optimizer.kept for part, optimizer in optimizers.items()}


def main(rank, directory):
    if rank == "alone":
        found = {name: gradients(name, slice(None), seed=0) for name in ALGORITHMS}
    else:
        number = int(rank)
        store = distributed.FileStore(str(directory / "store"), 2)
        distributed.init_process_group("gloo", store=store, rank=number, world_size=2)
        rows = slice(number * 4, number * 4 + 4)
        # Ranks whose generators are not in step: without an agreement they would draw different subnets.
        found = {name: gradients(name, rows, seed=number) for name in ALGORITHMS}
        distributed.destroy_process_group()
    torch.save(found, directory / f"{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
