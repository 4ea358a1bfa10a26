"""Images from noise."""

from __future__ import annotations

import pytest
import torch

from razordeploy.compress.algorithm.build import build
from razordeploy.compress.distill.generators.generator import GENERATORS
from razordeploy.errors import ModelError, RecipeError


def made(name: str, **options):
    torch.manual_seed(0)
    config = {"type": f"mmrazor.{name}", "img_size": 16, "latent_dim": 10, "hidden_channels": 8, **options}
    return build(config, GENERATORS, "generator")


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("options", [{}, {"img_size": 27, "scale_factor": 3}, {"channels": 1}])
def test_images_of_the_size_asked_for(name, options):
    generator = made(name, **options)
    side = options.get("img_size", 16)
    image = generator(batch_size=4)
    assert image.shape == (4, options.get("channels", 3), side, side)
    image.square().sum().backward()
    assert all(p.grad is not None for p in generator.parameters())
    latent = torch.randn(4, 10)
    assert torch.equal(generator(latent), generator(data=latent))
    assert not torch.equal(generator(batch_size=4), generator(batch_size=4))


@pytest.mark.parametrize("name", GENERATORS)
def test_images_are_normalised_like_data(name):
    image = made(name)(batch_size=64)
    mean, deviation = image.mean((0, 2, 3)), image.std((0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(deviation, torch.ones(3), atol=2e-2, rtol=0)


def test_wrong_use():
    with pytest.raises(RecipeError, match="expected img_size as a multiple of 4, got 30"):
        made("DAFLGenerator", img_size=30)
    with pytest.raises(ModelError, match=r"expected noise \(N, 10\), got \(4, 3\)"):
        made("ZSKTGenerator")(torch.zeros(4, 3))
    with pytest.raises(ModelError, match="expected noise or a batch_size of 1 or more"):
        made("ZSKTGenerator")()
