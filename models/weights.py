"""Trained weights on disk: names, saving, loading.

A file `weights/<model>_x<scale>_<profile>.safetensors` holds the training form, so that training can go on from it, in
float16 where that costs no quality; its header says what it is. The model card beside it, `.md`, says how it was made
and how good it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file
from torch import nn

from models.registry import require_scale
from models.spec import ModelSpec

Profile = Literal["clean", "compressed"]
"""What the frames went through: `clean` is rendered, `compressed` is decoded from a lossy stream."""
PROFILES: tuple[Profile, ...] = get_args(Profile)
DEFAULT_PROFILE: Profile = "compressed"
"""Of commands that are told none; `service.settings.default_profile` says the same for requests."""

WEIGHTS_DIR = Path(__file__).resolve().parent.parent / "weights"


class WeightsError(RuntimeError):
    """Weights are missing, unreadable or made for another network; the message names the file."""


def variant_name(model: str, scale: int, profile: Profile) -> str:
    """The name under which a trained network is stored and served, e.g. `runet_x2_clean`."""
    return f"{model}_x{scale}_{profile}"


def weights_path(spec: ModelSpec, scale: int, profile: Profile, folder: Path = WEIGHTS_DIR) -> Path:
    """Where the weights of a variant are kept."""
    return folder / f"{variant_name(spec.name, scale, profile)}.safetensors"


def save(
    network: nn.Module, path: Path, facts: Mapping[str, str] | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write the training form's weights to `path`, replacing the file in one step.

    Args:
        network: as `load` is to return it.
        path: a weights file.
        facts: for the file's header.
        dtype: of the stored numbers, float32 or float16; integers stay what they are.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    save_file(tensors, partial, dict(facts or {}))
    partial.replace(path)


def facts(path: Path) -> dict[str, str]:
    """What the header of a weights file says of how it was made.

    Raises:
        WeightsError: the file is missing or unreadable.
    """
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"cannot read the weights at {path}: {str(error).splitlines()[0]}") from error


def load(spec: ModelSpec, scale: int, profile: Profile, folder: Path = WEIGHTS_DIR) -> nn.Module:
    """The trained network in its training form, in eval mode and float32; a method that learns nothing needs no file.

    Raises:
        UnsupportedScaleError: the method has no such scale.
        WeightsError: the file is missing or does not fit the network.
    """
    require_scale(spec, scale)
    if not spec.learned:
        return spec.build(scale).eval()
    path = weights_path(spec, scale, profile, folder)
    if not path.is_file():
        command = f"python -m training --model {spec.name} --scale {scale} --profile {profile}"
        raise WeightsError(f"no weights at {path}: train them with '{command}'")
    return load_file(spec, scale, path)


def untrained(spec: ModelSpec, scale: int) -> nn.Module:
    """The network with the same random weights every time, in its training form and eval mode.

    It costs what the trained one costs. Its pictures mean nothing.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return spec.build(require_scale(spec, scale)).eval()


def load_file(spec: ModelSpec, scale: int, path: Path) -> nn.Module:
    """As `load`, from a file of any name."""
    network = spec.build(require_scale(spec, scale))
    if not path.is_file():
        raise WeightsError(f"no weights at {path}")
    try:
        network.load_state_dict(load_tensors(path))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"the weights at {path} do not fit {spec.name} x{scale}: {reason}") from error
    return network.eval()


def digest(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
