"""Re-parameterisable convolutions: several linear branches in training, one 3x3 convolution when deployed.

The kinds differ in their branches alone. All of them convolve once in training too: `forward` merges the branches'
weights and applies the result (online re-parameterisation, OREPA: Hu et al., CVPR 2022), so the gradients are those of
the branches while the frame passes through one convolution. `branches` says what a block means.

Shapes: (N, in_channels, H, W) to (N, out_channels, H, W), stride 1, zero padding of the input.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor, nn

from models.reparam import Mergeable


class RepConv(Mergeable):
    """A sum of linear branches that one 3x3 convolution can replace."""

    @abstractmethod
    def branches(self, x: Tensor) -> Tensor:
        """The definition: the branches one by one, then their sum."""

    @abstractmethod
    def kernel_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """The equivalent 3x3 kernel (out, in, 3, 3) and bias (out,), differentiable in the branches' weights."""

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branches by one convolution."""
        kernel, bias = self.kernel_and_bias()
        return F.conv2d(x, kernel, bias, padding=1)

    def merged(self) -> nn.Conv2d:
        """One 3x3 convolution."""
        return as_conv(*self.kernel_and_bias())


class RepVGGConv(RepConv):
    """3x3 + 1x1 + identity (RepVGG, Ding et al., CVPR 2021), without batch normalisation, which harms super-resolution.

    The identity is there when the block keeps the number of channels.
    """

    def __init__(self, in_channels: int, out_channels: int | None = None, *, bias: bool = True) -> None:
        super().__init__()
        out_channels = out_channels or in_channels
        self.conv3 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        self.has_identity = in_channels == out_channels

    def branches(self, x: Tensor) -> Tensor:
        """The definition."""
        y = self.conv3(x) + self.conv1(x)
        return y + x if self.has_identity else y

    def kernel_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """The equivalent convolution."""
        kernel = self.conv3.weight + centred(self.conv1.weight)
        if self.has_identity:
            kernel = kernel + identity_kernel(kernel)
        if self.conv3.bias is None:
            return kernel, None
        return kernel, bias_of(self.conv3) + bias_of(self.conv1)


class EdgeConv(RepConv):
    """3x3, expanding 1x1-3x3, two Sobels, a Laplacian and an identity (ECB of ECBSR, Zhang et al., ACM MM 2021).

    Each edge branch is a 1x1 convolution and a fixed 3x3 filter per channel, with a learned scale and bias per channel.
    Branches that begin with a 1x1 convolution see the frame already padded, which makes the merge exact at the borders.

    Args:
        in_channels, out_channels: as named; the identity is there when they are equal.
        expansion: width of the 1x1-3x3 branch in multiples of `out_channels`.
    """

    filters: Tensor

    def __init__(self, in_channels: int, out_channels: int | None = None, *, expansion: int = 2) -> None:
        super().__init__()
        out_channels = out_channels or in_channels
        self.conv3 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.expand = nn.Conv2d(in_channels, expansion * out_channels, 1)
        self.reduce = nn.Conv2d(expansion * out_channels, out_channels, 3)
        self.edges = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in range(3))
        self.scales = nn.Parameter(torch.randn(3, out_channels) * 1e-3)
        self.biases = nn.Parameter(torch.randn(3, out_channels) * 1e-3)
        sobel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        laplacian = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
        self.register_buffer("filters", torch.stack([sobel, sobel.T, laplacian]), persistent=False)
        self.has_identity = in_channels == out_channels

    def branches(self, x: Tensor) -> Tensor:
        """The definition."""
        padded = F.pad(x, (1, 1, 1, 1))
        y = self.conv3(x) + self.reduce(self.expand(padded))
        for edge, scale, bias, kernel in zip(self.edges, self.scales, self.biases, self.filters, strict=True):
            depthwise = scale[:, None, None, None] * kernel
            y = y + F.conv2d(edge(padded), depthwise, bias, groups=len(scale))
        return y + x if self.has_identity else y

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """The equivalent convolution."""
        kernel, bias = compose(self.expand, self.reduce.weight, bias_of(self.reduce))
        kernel, bias = kernel + self.conv3.weight, bias + bias_of(self.conv3)
        for edge, scale, shift, filter_ in zip(self.edges, self.scales, self.biases, self.filters, strict=True):
            assert isinstance(edge, nn.Conv2d)
            depthwise = scale[:, None, None, None] * filter_
            kernel = kernel + edge.weight * depthwise
            bias = bias + bias_of(edge) * depthwise.sum((1, 2, 3)) + shift
        return kernel + identity_kernel(kernel) if self.has_identity else kernel, bias


class ExpandSqueezeConv(RepConv):
    """1x1 expand, 3x3 with an inner identity, 1x1 squeeze, and an outer identity (RepBlock of ERB and FMEN).

    The frame is padded before the expansion, so the merge is exact at the borders.
    """

    def __init__(self, channels: int, *, expansion: int = 2) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, expansion * channels, 1)
        self.conv3 = nn.Conv2d(expansion * channels, expansion * channels, 3)
        self.squeeze = nn.Conv2d(expansion * channels, channels, 1)

    def branches(self, x: Tensor) -> Tensor:
        """The definition."""
        wide = self.expand(F.pad(x, (1, 1, 1, 1)))
        return self.squeeze(self.conv3(wide) + wide[..., 1:-1, 1:-1]) + x

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """The equivalent convolution."""
        inner = self.conv3.weight + identity_kernel(self.conv3.weight)
        kernel, bias = compose(self.expand, inner, bias_of(self.conv3))
        kernel, bias = followed_by(kernel, bias, self.squeeze)
        return kernel + identity_kernel(kernel), bias


class WideConv(RepConv):
    """3x3 into many channels and 1x1 back, with a residual (RepConv of LRSRN).

    Args:
        in_channels, out_channels: as named; the residual is the identity when they are equal.
        width: channels between the two convolutions.
        projection: where the numbers of channels differ, have a 1x1 convolution as the residual, else none.
    """

    def __init__(
        self, in_channels: int, out_channels: int | None = None, *, width: int = 256, projection: bool = False
    ) -> None:
        super().__init__()
        out_channels = out_channels or in_channels
        self.conv3 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, out_channels, 1)
        self.has_identity = in_channels == out_channels
        self.projection = nn.Conv2d(in_channels, out_channels, 1) if projection and not self.has_identity else None

    def branches(self, x: Tensor) -> Tensor:
        """The definition."""
        y = self.conv1(self.conv3(x))
        if self.has_identity:
            return y + x
        return y + self.projection(x) if self.projection else y

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """The equivalent convolution."""
        kernel, bias = followed_by(self.conv3.weight, bias_of(self.conv3), self.conv1)
        if self.has_identity:
            return kernel + identity_kernel(kernel), bias
        if self.projection:
            return kernel + centred(self.projection.weight), bias + bias_of(self.projection)
        return kernel, bias


class OnlineConv(RepConv):
    """The linear branches of OREPA, each scaled per output channel: 3x3, 1x1, 1x1-3x3, 1x1-average and identity.

    Without bias, as DFCDN needs it. The scales take the place of batch normalisation.
    """

    def __init__(self, in_channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        out_channels = out_channels or in_channels
        self.conv3 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.expand = nn.Conv2d(in_channels, 2 * out_channels, 1, bias=False)
        self.reduce = nn.Conv2d(2 * out_channels, out_channels, 3, padding=1, bias=False)
        self.average = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.has_identity = in_channels == out_channels
        self.scales = nn.Parameter(torch.tensor([[1.0], [0.5], [0.5], [0.5], [0.5]]).repeat(1, out_channels))

    def branches(self, x: Tensor) -> Tensor:
        """The definition."""
        pooled = F.avg_pool2d(self.average(x), 3, stride=1, padding=1)
        answers = [self.conv3(x), self.conv1(x), self.reduce(self.expand(x)), pooled]
        if self.has_identity:
            answers.append(x)
        # Without an identity its scale is left over.
        return torch.stack([s[:, None, None] * y for s, y in zip(self.scales, answers, strict=False)]).sum(0)

    def kernel_and_bias(self) -> tuple[Tensor, None]:
        """The equivalent convolution."""
        kernels = [
            self.conv3.weight,
            centred(self.conv1.weight),
            compose(self.expand, self.reduce.weight, None)[0],
            (self.average.weight / 9).expand(-1, -1, 3, 3),
        ]
        if self.has_identity:
            kernels.append(identity_kernel(self.conv3.weight))
        scaled = [s[:, None, None, None] * k for s, k in zip(self.scales, kernels, strict=False)]
        return torch.stack(scaled).sum(0), None


class Scaled(RepConv):
    """Another re-parameterisable convolution whose output is multiplied by a constant."""

    def __init__(self, block: RepConv, factor: float) -> None:
        super().__init__()
        self.block = block
        self.factor = factor

    def branches(self, x: Tensor) -> Tensor:
        """The definition."""
        return self.block.branches(x) * self.factor

    def kernel_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """The equivalent convolution."""
        kernel, bias = self.block.kernel_and_bias()
        return kernel * self.factor, None if bias is None else bias * self.factor


class ConvBN(Mergeable):
    """A convolution and a batch normalisation; in training the batch's own statistics, so merged at deployment only.

    Shapes: (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride), rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, then normalise."""
        return self.norm(self.conv(x))

    def merged(self) -> nn.Conv2d:
        """One convolution with a bias."""
        return as_conv(*folded(self.conv.weight, None, self.norm), self.conv.stride[0])


class ConvBNConv(Mergeable):
    """3x3, batch normalisation, 1x1 (Repnet's block): in training the batch's own statistics.

    Shapes: (N, in_channels, H, W) to (N, out_channels, H, W), zero padding.
    """

    def __init__(self, in_channels: int, out_channels: int, *, width: int | None = None) -> None:
        super().__init__()
        width = width or out_channels
        self.conv3 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The three layers in turn."""
        return self.conv1(self.norm(self.conv3(x)))

    def merged(self) -> nn.Conv2d:
        """One 3x3 convolution."""
        kernel, bias = folded(self.conv3.weight, self.conv3.bias, self.norm)
        return as_conv(*followed_by(kernel, bias, self.conv1))


def as_conv(kernel: Tensor, bias: Tensor | None, stride: int = 1) -> nn.Conv2d:
    """A convolution layer of this kernel (out, in, k, k) and bias (out,), with padding k // 2."""
    out_channels, in_channels, side, _ = kernel.shape
    conv = nn.Conv2d(in_channels, out_channels, side, stride, side // 2, bias=bias is not None)
    conv = conv.to(device=kernel.device, dtype=kernel.dtype)
    with torch.no_grad():
        conv.weight.copy_(kernel)
        if bias is not None:
            bias_of(conv).copy_(bias)
    return conv


def bias_of(conv: nn.Conv2d) -> Tensor:
    """The bias of a convolution that has one."""
    assert conv.bias is not None
    return conv.bias


def centred(kernel: Tensor) -> Tensor:
    """A 1x1 kernel as a 3x3 one."""
    return F.pad(kernel, (1, 1, 1, 1))


def identity_kernel(like: Tensor) -> Tensor:
    """The 3x3 kernel that passes every channel through, with the channels, type and place of `like`."""
    return centred(torch.eye(like.shape[0], dtype=like.dtype, device=like.device)[..., None, None])


def compose(first: nn.Conv2d, kernel: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution `first` followed by `kernel` and `bias`, as one kernel and bias."""
    merged = torch.einsum("omhw,mi->oihw", kernel, first.weight[..., 0, 0])
    zero = kernel.new_zeros(kernel.shape[0])
    shift = zero if first.bias is None else torch.einsum("omhw,m->o", kernel, first.bias)
    return merged, shift if bias is None else shift + bias


def followed_by(kernel: Tensor, bias: Tensor, last: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """A convolution of `kernel` and `bias` followed by the 1x1 convolution `last`, as one kernel and bias."""
    weight = last.weight[..., 0, 0]
    return torch.einsum("om,mihw->oihw", weight, kernel), weight @ bias + bias_of(last)


def folded(kernel: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A convolution followed by a batch normalisation in eval mode, as one kernel and bias."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    centre = norm.running_mean if bias is None else norm.running_mean - bias
    return kernel * gain[:, None, None, None], norm.bias - centre * gain


def carry_frame(chain: Sequence[RepVGGConv | nn.Conv2d]) -> None:
    """Let a chain of convolutions, with an activation after each or without, start by passing the frame on as it is.

    For ReLU, GELU and SiLU f(x) - f(-x) is x. So each colour travels as a pair of opposite signs, in the first six
    channels, and the convolution after the chain can read the frame from them: a network without a skip need not
    find it again. The other channels keep their random weights.

    Args:
        chain: the convolutions, 3x3 and without biases; the first one takes RGB, all give six channels or more.
    """
    with torch.no_grad():
        for number, layer in enumerate(chain):
            conv = layer.conv3 if isinstance(layer, RepVGGConv) else layer
            kernel = layer.kernel_and_bias()[0] if isinstance(layer, RepVGGConv) else layer.weight
            wanted = torch.zeros_like(kernel[:6])
            for colour in range(3):
                for place, sign in ((colour, 1), (colour + 3, -1)):
                    wanted[place, colour, 1, 1] = sign
                    if number:
                        wanted[place, colour + 3, 1, 1] = -sign
            conv.weight[:6] += wanted - kernel[:6]
