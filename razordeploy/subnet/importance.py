"""How much a channel matters: the L1 norm of the filters that make it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from razordeploy.subnet.tracer.unit import Member, PrunableUnit, Span


def l1_importance(tensors: Mapping[str, torch.Tensor]) -> Callable[[PrunableUnit, int], torch.Tensor]:
    """Rank elements by the summed L1 norm of their filters (Li et al., Pruning Filters for Efficient ConvNets).

    The score of an element is the sum of ``|w|`` over everything that produces it, in float32: every convolution and
    linear layer of a residual stream counts with all its weights, so a wide producer weighs more than a narrow one.
    What consumes the element does not count, nor do biases and norms, unless nothing else produces it.

    Args:
        tensors: the model's parameters and buffers by name.
    """

    def score(unit: PrunableUnit, strand: int) -> torch.Tensor:
        outputs = [m for m in unit.outputs() if m.strand == strand]
        layers = [m for m in outputs if tensors[m.tensor].dim() > 1 and m.is_weight]
        total = torch.zeros(unit.channels)
        for member in layers or outputs or [m for m in unit.members if m.strand == strand]:
            total += _per_element(member, tensors[member.tensor].detach(), unit.channels)
        return total

    return score


def _per_element(member: Member, tensor: torch.Tensor, channels: int) -> torch.Tensor:
    if member.group is not None:
        rows = tensor.shape[0] // member.groups
        tensor = tensor[member.group * rows : (member.group + 1) * rows]
    others = [dim for dim in range(tensor.dim()) if dim != member.dim]
    norms = tensor.abs().float().sum(others).cpu() if others else tensor.abs().float().cpu()
    total = torch.zeros(channels)
    for span in member.spans:
        total[span.first : span.first + span.count] += norms[positions(span)].sum(1)
    return total


def positions(span: Span) -> torch.Tensor:
    """Every position of every element of a span, int64 ``(count, positions per element)``."""
    table = (span.offset + torch.arange(span.count) * span.stride)[:, None]
    for times, distance in span.repeats:
        table = (table[:, :, None] + torch.arange(times) * distance).flatten(1)
    return (table[:, :, None] + torch.arange(span.block)).flatten(1)
