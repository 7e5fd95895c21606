"""Structured pruning, as Bicubic++ is trained (section 3.2): a wider network, stripped channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from rich.progress import Progress
from torch import Tensor, nn

from models.bicubic_plus_plus import BicubicPlusPlus

Batch = tuple[Tensor, Tensor]


def prune(wide: BicubicPlusPlus, channels: int, batches: Sequence[Batch]) -> BicubicPlusPlus:
    """The network without the channels that are missed least, one after the other.

    Head, residual and tail share their channels, so these go together; those inside the body are a group of their own.
    In each round the channel is taken whose absence raises the error on the batches least; no norm of weights is asked.

    Args:
        wide: a trained network; left as it is.
        channels: how many each group keeps.
        batches: (LR, HR), float RGB in [0, 1].
    """
    outer, inner = (torch.ones(wide.tail.in_channels) for _ in range(2))
    handles = [_mask(layer, mask) for layer, mask in ((wide.head, outer), (wide.body, outer), (wide.body[1], inner))]
    with torch.no_grad(), Progress(transient=True) as progress:
        bar = progress.add_task("pruning", total=2 * (len(outer) - channels))
        for mask in (outer, inner):
            while int(mask.sum()) > channels:
                kept = mask.nonzero().flatten().tolist()
                mask[min(kept, key=lambda channel, mask=mask: _error_without(wide, mask, channel, batches))] = 0
                progress.advance(bar)
    for handle in handles:
        handle.remove()
    return _narrow(wide, outer.bool(), inner.bool())


def _mask(layer: nn.Module, mask: Tensor) -> Any:
    def keep(layer: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * mask[:, None, None]

    return layer.register_forward_hook(keep)


def _error_without(network: nn.Module, mask: Tensor, channel: int, batches: Sequence[Batch]) -> float:
    mask[channel] = 0
    error = sum(float(F.l1_loss(network(lr), hr)) for lr, hr in batches)
    mask[channel] = 1
    return error


def _narrow(wide: BicubicPlusPlus, outer: Tensor, inner: Tensor) -> BicubicPlusPlus:
    """A network of the kept channels only."""
    narrow = BicubicPlusPlus(wide.scale, int(outer.sum()))
    weights = wide.state_dict()
    narrow.load_state_dict(
        {
            "head.0.weight": weights["head.0.weight"][outer],
            "body.0.weight": weights["body.0.weight"][inner][:, outer],
            "body.2.weight": weights["body.2.weight"][outer][:, inner],
            "tail.weight": weights["tail.weight"][:, outer],
        }
    )
    return narrow
