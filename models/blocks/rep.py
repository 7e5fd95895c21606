"""Re-parameterisable convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor, nn

from models.reparam import Mergeable


class RepVGGConv(Mergeable):
    """3x3 + 1x1 + identity, summed: the RepVGG block without batch normalisation, which harms super-resolution.

    All branches are linear, so `forward` merges their weights and convolves once (online re-parameterisation): training
    costs about what the plain convolution costs, while the gradients are those of the branches.

    Shapes: (N, channels, H, W) to (N, channels, H, W), zero padding.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv1 = nn.Conv2d(channels, channels, 1)

    def branches(self, x: Tensor) -> Tensor:
        """What the block means: the three branches one by one, then their sum."""
        return self.conv3(x) + self.conv1(x) + x

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """The equivalent 3x3 kernel (out, in, 3, 3) and bias (out,)."""
        centre = self.conv1.weight + torch.eye(self.conv1.out_channels, dtype=self.conv1.weight.dtype)[
            ..., None, None
        ].to(self.conv1.weight.device)
        kernel = self.conv3.weight + F.pad(centre, (1, 1, 1, 1))
        assert self.conv3.bias is not None
        assert self.conv1.bias is not None
        return kernel, self.conv3.bias + self.conv1.bias

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branches by one convolution."""
        kernel, bias = self.kernel_and_bias()
        return F.conv2d(x, kernel, bias, padding=1)

    def merged(self) -> nn.Conv2d:
        """One 3x3 convolution."""
        kernel, bias = self.kernel_and_bias()
        out_channels, in_channels = kernel.shape[:2]
        conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, dtype=kernel.dtype, device=kernel.device)
        with torch.no_grad():
            conv.weight.copy_(kernel)
            assert conv.bias is not None
            conv.bias.copy_(bias)
        return conv
