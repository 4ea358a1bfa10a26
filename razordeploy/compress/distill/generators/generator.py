"""Noise to images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError, RecipeError


class BaseGenerator(nn.Module, ABC):
    """Two upsampling steps from a small map to an image.

    Args:
        img_size: side of the image; a multiple of ``scale_factor`` squared.
        latent_dim: length of the noise.
        hidden_channels: of the maps; half as many in the last block.
        scale_factor: of each of the two upsampling steps.
        channels: of the image.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        img_size: int,
        latent_dim: int,
        hidden_channels: int,
        scale_factor: int = 2,
        channels: int = 3,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if img_size % scale_factor**2:
            raise RecipeError(
                f"{type(self).__name__}: expected img_size as a multiple of {scale_factor**2}, got {img_size}"
            )
        self.img_size = img_size
        self.latent_dim = latent_dim
        self.hidden_channels = hidden_channels
        self.init_size = img_size // scale_factor**2
        self.scale_factor = scale_factor
        self.channels = channels
        self.init_cfg = init_cfg

    def forward(self, data: Tensor | None = None, batch_size: int = 0) -> Tensor:
        """Noise (N, latent_dim), or how many to draw -> images (N, channels, img_size, img_size)."""
        return self.generate(self.process_latent(data, batch_size))

    @abstractmethod
    def generate(self, latent: Tensor) -> Tensor:
        """(N, latent_dim) -> (N, channels, img_size, img_size)."""

    def process_latent(self, data: Tensor | None = None, batch_size: int = 0) -> Tensor:
        """``data`` on the generator's device, or as much standard normal noise.

        Raises:
            ModelError: neither noise of ``latent_dim`` values nor a batch size.
        """
        parameter = next(self.parameters())
        if data is None:
            if batch_size < 1:
                raise ModelError(f"{type(self).__name__}: expected noise or a batch_size of 1 or more, got neither")
            return torch.randn(batch_size, self.latent_dim, device=parameter.device, dtype=parameter.dtype)
        if data.ndim != 2 or data.shape[1] != self.latent_dim:
            raise ModelError(f"{type(self).__name__}: expected noise (N, {self.latent_dim}), got {tuple(data.shape)}")
        return data.to(parameter.device)

    def init_weights(self) -> None:
        """Apply ``init_cfg``; mmengine calls this before training."""
        if self.init_cfg:
            from mmengine.model import initialize

            initialize(self, self.init_cfg)


class DAFLGenerator(BaseGenerator):
    """Generator of Data-Free Learning of Student Networks (Chen et al. 2019, arXiv 1904.01186).

    Args:
        img_size: side of the image; a multiple of ``scale_factor`` squared.
        latent_dim: length of the noise; official 1000.
        hidden_channels: of the maps; official 128.
        scale_factor: of each upsampling step.
        bn_eps: of the two batch norms between convolutions; official 0.8.
        leaky_slope: of the leaky ReLUs.
        channels: of the image.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        img_size: int,
        latent_dim: int,
        hidden_channels: int,
        scale_factor: int = 2,
        bn_eps: float = 0.8,
        leaky_slope: float = 0.2,
        channels: int = 3,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(img_size, latent_dim, hidden_channels, scale_factor, channels, init_cfg)
        half = hidden_channels // 2
        self.linear = nn.Linear(latent_dim, hidden_channels * self.init_size**2)
        self.bn1 = nn.BatchNorm2d(hidden_channels)
        self.conv_blocks1 = nn.Sequential(
            nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1),
            nn.BatchNorm2d(hidden_channels, eps=bn_eps),
            nn.LeakyReLU(leaky_slope),
        )
        self.conv_blocks2 = nn.Sequential(
            nn.Conv2d(hidden_channels, half, 3, padding=1),
            nn.BatchNorm2d(half, eps=bn_eps),
            nn.LeakyReLU(leaky_slope),
            nn.Conv2d(half, channels, 3, padding=1),
            nn.Tanh(),
            nn.BatchNorm2d(channels, affine=False),
        )

    def generate(self, latent: Tensor) -> Tensor:
        """(N, latent_dim) -> (N, channels, img_size, img_size), about zero mean and unit deviation."""
        size = (self.hidden_channels, self.init_size, self.init_size)
        x = self.bn1(self.linear(latent).unflatten(1, size))
        for block in (self.conv_blocks1, self.conv_blocks2):
            x = block(nn.functional.interpolate(x, scale_factor=self.scale_factor))
        return x


class ZSKTGenerator(BaseGenerator):
    """Generator of Zero-shot Knowledge Transfer via Adversarial Belief Matching (Micaelli and Storkey 2019).

    arXiv 1905.09768.

    Args:
        img_size: side of the image; a multiple of ``scale_factor`` squared.
        latent_dim: length of the noise; official 100.
        hidden_channels: of the maps; official 128.
        scale_factor: of each upsampling step.
        leaky_slope: of the leaky ReLUs.
        channels: of the image.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        img_size: int,
        latent_dim: int,
        hidden_channels: int,
        scale_factor: int = 2,
        leaky_slope: float = 0.2,
        channels: int = 3,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(img_size, latent_dim, hidden_channels, scale_factor, channels, init_cfg)
        half = hidden_channels // 2
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, hidden_channels * self.init_size**2),
            nn.Unflatten(1, (hidden_channels, self.init_size, self.init_size)),
            nn.BatchNorm2d(hidden_channels),
            nn.Upsample(scale_factor=scale_factor),
            nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1),
            nn.BatchNorm2d(hidden_channels),
            nn.LeakyReLU(leaky_slope),
            nn.Upsample(scale_factor=scale_factor),
            nn.Conv2d(hidden_channels, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.LeakyReLU(leaky_slope),
            nn.Conv2d(half, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
        )

    def generate(self, latent: Tensor) -> Tensor:
        """(N, latent_dim) -> (N, channels, img_size, img_size)."""
        return self.layers(latent)


GENERATORS: dict[str, type[BaseGenerator]] = {"DAFLGenerator": DAFLGenerator, "ZSKTGenerator": ZSKTGenerator}
