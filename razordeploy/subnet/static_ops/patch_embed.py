"""Images to tokens."""

from __future__ import annotations

from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Square patches of an image, each projected to a token by one convolution.

    Args:
        img_size: side of the image, or (height, width).
        in_channels: channels of the image.
        embed_dims: channels of a token.
        patch_size: side of a patch.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        embed_dims: int = 768,
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.in_channels = in_channels
        self.embed_dims = embed_dims
        self.patch_size = patch_size
        self.patches_resolution = [side // patch_size for side in self.img_size]
        self.num_patches = self.patches_resolution[0] * self.patches_resolution[1]
        self.projection = nn.Conv2d(in_channels, embed_dims, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> tokens (N, L, embed_dims)."""
        return self.projection(x).flatten(2).transpose(1, 2)
