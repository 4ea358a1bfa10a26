"""Find the operations that an engine computes wrongly in int8, and leave them in float.

An engine is held against the simulation of its plan. The two differ by single steps where a sum ends between two grid
points; where they differ by more than quantization does, a kernel or a fusion of the engine's is at fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils._pytree import tree_leaves

from razordeploy.backends.base import Backend
from razordeploy.backends.harness import torch_runner
from razordeploy.deployment import Deployment
from razordeploy.each_backend import Made
from razordeploy.errors import BackendError, RazorDeployError
from razordeploy.job import begin
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.simulate import simulate
from razordeploy.recovery_goal import trial
from razordeploy.validation import few_samples, is_astray

_MOST = 8
"""Operations that are left in float so; an engine with more of them is reported as it is."""
_WRONG = "in int8 the engine computes something else than was planned"
_REFUSED = "in int8 the engine cannot be built"


def make_right(deployment: Deployment, backend: Backend, draft: Draft, notes: list[str]) -> tuple[Draft, Made]:
    """Make the engine of ``draft``; where it goes astray or is refused, another with the operations at fault in float.

    Args:
        deployment: what the engines of the run share.
        backend: makes the engine.
        draft: what it is made from.
        notes: gets a line where operations were left in float.

    Returns:
        The draft of the engine, and the engine. Those asked for where none was astray or nothing helped; the report
        then has a failure.

    Raises:
        BackendError: the engine cannot be built, and leaving a few operations in float does not help.
    """
    made, failure = None, None
    try:
        made = deployment.make(backend, draft)
    except BackendError as error:
        failure = error
    if made is not None and not made[1].get("astray"):
        return draft, made
    begin(deployment.job, f"{backend.name}: find what the engine gets wrong")
    reason = _WRONG if failure is None else _REFUSED
    found = _Search(deployment, backend, draft, reason).at_fault()
    if found:
        mended = draft.without(dict.fromkeys(found, reason), _batches(deployment))
        names = ", ".join(f"{op.node} ({op.module or op.kind})" for op in draft.plan.ops if op.node in found)
        notes.append(f"{backend.name}: {names} stays in float: {reason}" + (f": {failure}" if failure else ""))
        return mended, deployment.make(backend, mended)
    if made is None:
        assert failure is not None
        raise failure
    return draft, made


class _Search:
    def __init__(self, deployment: Deployment, backend: Backend, draft: Draft, reason: str) -> None:
        self.deployment, self.backend, self.draft, self.reason = deployment, backend, draft, reason
        self.inputs = [x.numpy() for x in few_samples(deployment.job, draft.captured)]
        self.in_float = tree_leaves(torch_runner(draft.float_model().graph_module)(*self.inputs))

    def at_fault(self) -> list[str]:
        """Operations without which the engine follows its simulation, none where there is no such set."""
        found: list[str] = []
        nodes = [op.node for op in self.draft.plan.ops if op.int8]
        if self._is_astray(nodes):
            return []
        for _ in range(_MOST):
            rest = [n for n in nodes if n not in found]
            if not rest:
                return []
            if found and not self._is_astray(found):
                return found
            low, high = 0, len(rest)  # astray with the first ``high`` in int8, not with the first ``low``
            while high - low > 1:
                middle = (low + high) // 2
                if self._is_astray([*found, *rest[middle:]]):
                    high = middle
                else:
                    low = middle
            found.append(rest[high - 1])
        return [] if self._is_astray(found) else found

    def _is_astray(self, in_float: Sequence[str]) -> bool:
        if self.deployment.job.progress.stop():
            begin(self.deployment.job, "")
        draft = self.draft.without(dict.fromkeys(in_float, self.reason), _batches(self.deployment))
        simulated = torch_runner(simulate(draft.captured, draft.plan, draft.params))
        try:
            with trial(self.deployment, self.backend, draft) as run:
                return is_astray(self.in_float, tree_leaves(simulated(*self.inputs)), run(*self.inputs))
        except RazorDeployError:  # what cannot be built is no better
            return True


def _batches(deployment: Deployment) -> Iterator[tuple[torch.Tensor, ...]]:
    return (batch.inputs for batch in deployment.job.calibration())
