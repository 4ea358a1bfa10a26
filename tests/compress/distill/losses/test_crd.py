"""Contrastive distillation: two steps of the official code, its equations in numpy, memory and indices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from razordeploy.compress.distill.losses.crd import CRDLoss
from razordeploy.errors import ModelError
from tests.compress.distill.losses.draws import array, tensor

IMAGES, WIDTH, NEGATIVES, TAU = 12, 7, 5, 0.07
OWN = torch.tensor([3, 0, 7, 11])


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.nn.functional.normalize(tensor(seed, 4, WIDTH)) for seed in (22, 23))


def contrast() -> torch.Tensor:
    drawn = torch.from_numpy(np.random.RandomState(24).randint(0, IMAGES, (4, NEGATIVES + 1)))
    drawn[:, 0] = OWN
    return drawn


def samples() -> list[BaseDataElement]:
    pairs = zip(OWN.tolist(), contrast(), strict=True)
    return [BaseDataElement(metainfo={"sample_idx": i, "contrast_sample_idxs": row}) for i, row in pairs]


def loss(**options) -> CRDLoss:
    made = CRDLoss(neg_num=NEGATIVES, sample_n=IMAGES, dim_out=WIDTH, **options).double()
    made.memory_v1.copy_(tensor(20, IMAGES, WIDTH, scale=0.3))
    made.memory_v2.copy_(tensor(21, IMAGES, WIDTH, scale=0.3))
    return made


def by_definition(steps: int) -> list[float]:
    """Equations 17 to 19 and the official memory, with loops."""
    banks = [array(20, IMAGES, WIDTH, scale=0.3), array(21, IMAGES, WIDTH, scale=0.3)]
    student, teacher = (x.numpy() for x in embeddings())
    noise, found, z = NEGATIVES / IMAGES, [], [0.0, 0.0]
    for step in range(steps):
        total = 0.0
        for side, (feats, bank) in enumerate(((student, banks[1]), (teacher, banks[0]))):
            h = np.array([[np.exp(bank[j] @ f / TAU) for j in row] for f, row in zip(feats, contrast(), strict=True)])
            z[side] = h.mean() * IMAGES if step == 0 else z[side]
            p = h / z[side]
            total -= np.log(p[:, 0] / (p[:, 0] + noise)).sum() + np.log(noise / (p[:, 1:] + noise)).sum()
        found.append(total / 4)
        for bank, feats in zip(banks, (student, teacher), strict=True):
            for j, f in zip(OWN.tolist(), feats, strict=True):
                row = 0.5 * bank[j] + 0.5 * f
                bank[j] = row / np.sqrt(row @ row)
    return found


def test_equals_two_steps_of_the_official_code():
    # RepDistiller crd/criterion.py and crd/memory.py.
    made = loss()
    values = [made(*embeddings(), samples()).item() for _ in range(2)]
    assert values == pytest.approx([20.9487286411, 23.4474763313], rel=1e-9)
    assert values == pytest.approx(by_definition(2), rel=1e-6)


def test_the_weight_counts():
    # The predecessor took it and never used it.
    assert loss(loss_weight=0.8)(*embeddings(), samples()).item() == pytest.approx(0.8 * by_definition(1)[0], rel=1e-6)


def test_rows_of_the_memory_have_length_one_and_others_stay():
    made = loss()
    before = made.memory_v1.clone()
    made(*embeddings(), samples())
    changed = (made.memory_v1 != before).any(1).nonzero().flatten()
    assert sorted(changed.tolist()) == sorted(OWN.tolist())
    torch.testing.assert_close(made.memory_v1[OWN].norm(dim=1), torch.ones(4, dtype=torch.float64))


def test_negatives_are_drawn_where_the_data_has_none():
    made = loss()
    torch.manual_seed(0)
    first = made(*embeddings(), OWN)
    assert first.ndim == 0 and bool(first.isfinite())
    plain = [BaseDataElement(metainfo={"sample_idx": i}) for i in OWN.tolist()]
    again = loss()
    torch.manual_seed(0)
    assert torch.equal(again(*embeddings(), plain), first)


def test_the_state_is_saved():
    made, other = loss(), loss()
    made(*embeddings(), samples())
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(*embeddings(), samples()), made(*embeddings(), samples()))
    assert set(made.state_dict()) == {"memory_v1", "memory_v2", "normaliser"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_samples": OWN + 4}, r"indices below sample_n=12, got 4 up to 15; set sample_n"),
        ({"data_samples": OWN[:3]}, "expected 4 indices"),
        ({"data_samples": [BaseDataElement()] * 4}, "expected data samples with 'sample_idx'"),
        ({"s_feats": torch.zeros(4, 3), "t_feats": torch.zeros(4, 3)}, r"CRDConnector', dim_in=\.\.\., dim_out=7"),
    ],
)
def test_wrong_use(change, message):
    given = {"s_feats": embeddings()[0], "t_feats": embeddings()[1], "data_samples": OWN}
    with pytest.raises(ModelError, match=message):
        loss()(**{**given, **change})
