"""Weights on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.registry import get
from models.weights import WeightsError, load, save, weights_path


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    spec = get("runet")
    network = spec.build(2)
    path = weights_path(spec, 2, "clean", tmp_path)
    save(network, path)
    assert path.name == "runet_x2_clean.safetensors"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    for name, tensor in load(spec, 2, "clean", tmp_path).state_dict().items():
        torch.testing.assert_close(tensor, network.state_dict()[name])


def test_half_as_many_bytes_are_loaded_as_float32(tmp_path: Path) -> None:
    spec = get("bicubic_plus_plus")
    network = spec.build(3)
    path = weights_path(spec, 3, "clean", tmp_path)
    save(network, path)
    whole = path.stat().st_size
    save(network, path, dtype=torch.float16)
    assert path.stat().st_size < 0.55 * whole
    for name, tensor in load(spec, 3, "clean", tmp_path).state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, network.state_dict()[name].half().float(), rtol=0, atol=0)


def test_missing_weights_say_how_to_train_them(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"train them with 'python -m training --model runet --scale 2 --profile compressed'"
    ):
        load(get("runet"), 2, "compressed", tmp_path)


@pytest.mark.parametrize("damage", ["other network", "cut off", "empty"])
def test_unusable_weights_are_told_in_one_line(tmp_path: Path, damage: str) -> None:
    spec = get("runet")
    path = weights_path(spec, 2, "clean", tmp_path)
    save(spec.build(3), path)
    if damage != "other network":
        path.write_bytes(path.read_bytes()[: 1000 if damage == "cut off" else 0])
    with pytest.raises(WeightsError, match="do not fit runet x2") as caught:
        load(spec, 2, "clean", tmp_path)
    assert "\n" not in str(caught.value)
