"""Re-parameterisation: from the form that trains well to the form that runs fast, computing the same function."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

from torch import nn


class Mergeable(nn.Module, ABC):
    """A block whose linear branches collapse into one convolution (RepVGG, Ding et al., CVPR 2021)."""

    @abstractmethod
    def merged(self) -> nn.Module:
        """The plain layer that computes what this block computes."""


def reparameterise(network: nn.Module) -> nn.Module:
    """A copy of `network`, in eval mode, with every mergeable block replaced by its plain layer."""
    if isinstance(network, Mergeable):
        return network.merged().eval()
    deployed = copy.deepcopy(network).eval()
    for name, child in network.named_children():
        setattr(deployed, name, reparameterise(child))
    return deployed
