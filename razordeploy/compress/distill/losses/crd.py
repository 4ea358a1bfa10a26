"""Contrastive representation distillation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from razordeploy.compress.distill.losses.gather import gather_batch
from razordeploy.compress.distill.losses.inputs import check_same_shape
from razordeploy.errors import ModelError


class CRDLoss(nn.Module):
    """Tells the teacher's embedding of the same image from those of others in a memory bank, and the other way round.

    Contrastive Representation Distillation (Tian et al. 2020, arXiv 1910.10699), equations 17 to 19, with the noise
    contrastive estimate and the momentum memory of the official code. Embeddings of length 1 come from
    ``CRDConnector``. The banks hold one row per training image; the processes of a run fill them together.

    Args:
        loss_weight: factor of the result; official 0.8.
        temperature: of the similarities.
        neg_num: negatives per sample.
        sample_n: images in the training set.
        dim_out: length of an embedding.
        momentum: part of a memory row that an update keeps.
        eps: added to the denominators.
    """

    memory_v1: Tensor
    memory_v2: Tensor
    normaliser: Tensor

    def __init__(
        self,
        *,
        loss_weight: float = 1.0,
        temperature: float = 0.07,
        neg_num: int = 16384,
        sample_n: int = 50000,
        dim_out: int = 128,
        momentum: float = 0.5,
        eps: float = 1e-7,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.temperature = temperature
        self.neg_num = neg_num
        self.momentum = momentum
        self.eps = eps
        bound = (3 / dim_out) ** 0.5
        self.register_buffer("memory_v1", torch.empty(sample_n, dim_out).uniform_(-bound, bound))
        self.register_buffer("memory_v2", torch.empty(sample_n, dim_out).uniform_(-bound, bound))
        # Z of student and teacher, by the first batch; -1: not known yet.
        self.register_buffer("normaliser", torch.full((2,), -1.0))

    def forward(self, s_feats: Tensor, t_feats: Tensor, data_samples: Tensor | Sequence[object]) -> Tensor:
        """Embeddings (N, dim_out) of both and whose they are -> scalar.

        Args:
            s_feats: the student's, of length 1.
            t_feats: the teacher's.
            data_samples: index of each image in the training set, int64 (N,); or data samples with ``sample_idx``
                and, as ``CRDDataset`` gives them, ``contrast_sample_idxs`` (neg_num + 1,), the image itself first.

        Raises:
            ModelError: other shapes, or indices outside the memory.
        """
        check_same_shape(s_feats, t_feats, type(self).__name__)
        size, width = self.memory_v1.shape
        if s_feats.ndim != 2 or s_feats.shape[1] != width:
            raise ModelError(
                f"CRDLoss: expected embeddings (N, {width}), got {tuple(s_feats.shape)}",
                hint=f"give both sides connector=dict(type='CRDConnector', dim_in=..., dim_out={width})",
            )
        own, contrast = self._indices(data_samples, s_feats.device)
        if len(own) != len(s_feats) or int(own.max()) >= size or int(contrast.max()) >= size:
            raise ModelError(
                f"CRDLoss: expected {len(s_feats)} indices below sample_n={size}, got {len(own)} up to "
                f"{max(int(own.max()), int(contrast.max()))}",
                hint="set sample_n to the number of training images",
            )
        similar_s = self._similarity(self.memory_v2, contrast, s_feats)
        similar_t = self._similarity(self.memory_v1, contrast, t_feats)
        z_s, z_t = self._normalise(similar_s, similar_t)
        loss = self._contrast(similar_s / z_s) + self._contrast(similar_t / z_t)
        self._update(own, s_feats, t_feats)
        return self.loss_weight * loss

    def _indices(self, data_samples: Tensor | Sequence[object], device: torch.device) -> tuple[Tensor, Tensor]:
        contrast: Tensor | None = None
        if isinstance(data_samples, Tensor):
            own = data_samples.to(device)
        else:
            found = [getattr(sample, "sample_idx", None) for sample in data_samples]
            if not found or any(index is None for index in found):
                raise ModelError(
                    "CRDLoss: expected data samples with 'sample_idx'", hint="pack it: meta_keys=('sample_idx', ...)"
                )
            own = torch.as_tensor([int(index) for index in found if index is not None], device=device)
            drawn = [getattr(sample, "contrast_sample_idxs", None) for sample in data_samples]
            if all(row is not None for row in drawn):
                contrast = torch.stack([torch.as_tensor(row) for row in drawn]).to(device)
        if contrast is None:
            contrast = torch.randint(len(self.memory_v1), (len(own), self.neg_num + 1), device=device)
            contrast[:, 0] = own
        return own, contrast

    def _similarity(self, memory: Tensor, contrast: Tensor, feats: Tensor) -> Tensor:
        return torch.exp(torch.einsum("nkd,nd->nk", memory[contrast], feats) / self.temperature)

    @torch.no_grad()
    def _normalise(self, similar_s: Tensor, similar_t: Tensor) -> tuple[Tensor, Tensor]:
        if bool((self.normaliser < 0).any()):
            means = torch.stack([similar_s.mean(), similar_t.mean()])[None]
            self.normaliser.copy_(gather_batch(means).mean(0) * len(self.memory_v1))
        return self.normaliser[0], self.normaliser[1]

    def _contrast(self, similar: Tensor) -> Tensor:
        noise = (similar.shape[1] - 1) / len(self.memory_v1)
        positive, negative = similar[:, :1], similar[:, 1:]
        of_positive = torch.log(positive / (positive + noise + self.eps)).sum()
        of_negative = torch.log(noise / (negative + noise + self.eps)).sum()
        return -(of_positive + of_negative) / len(similar)

    @torch.no_grad()
    def _update(self, own: Tensor, s_feats: Tensor, t_feats: Tensor) -> None:
        index = gather_batch(own)
        for memory, feats in ((self.memory_v1, s_feats), (self.memory_v2, t_feats)):
            rows = self.momentum * memory[index] + (1 - self.momentum) * gather_batch(feats.detach().to(memory.dtype))
            memory[index] = rows / rows.norm(dim=1, keepdim=True)
