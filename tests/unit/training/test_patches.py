"""Pictures to patches to batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import SETTINGS, detailed
from training.data import pictures_of
from training.metrics import psnr
from training.pack import Patches, pack
from training.patches import Batches, NoPatchesError, load_patches
from training.pictures import open_rgb, open_true_rgb


def test_pictures_of_one_name_are_all_kept(tmp_path: Path) -> None:
    wallpapers = [f"usr/share/wallpapers/{name}/contents/images/1.png" for name in ("a", "b")]
    package = tmp_path / "package"
    for path in (*wallpapers, "usr/share/other/1.png"):
        (package / path).parent.mkdir(parents=True)
        Image.new("RGB", (32, 8)).save(package / path)
    assert [name for name, _ in pictures_of(package, least_width=32)] == [
        "usr-share-other-1.png",
        "a-contents-images-1.png",
        "b-contents-images-1.png",
    ]
    assert not list(pictures_of(package, least_width=33))


def test_pictures_without_colour_detail_are_reduced(tmp_path: Path) -> None:
    picture = Image.fromarray(detailed(0))
    for subsampling, side in (("4:4:4", 240), ("4:2:0", 120), ("4:2:2", 120)):
        picture.save(tmp_path / "picture.jpg", subsampling=subsampling, quality=95)
        assert open_true_rgb(tmp_path / "picture.jpg").shape == (side, side, 3)
        assert open_rgb(tmp_path / "picture.jpg").shape == (240, 240, 3)
    picture.convert("L").save(tmp_path / "grey.jpg")
    assert open_true_rgb(tmp_path / "grey.jpg").shape == (240, 240, 3)


def test_patches_are_cut_once_and_flat_ones_are_left_out(pictures: Path) -> None:
    Image.new("RGB", (480, 480), "grey").save(pictures / "flat.png")
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    patches = load_patches(pictures, 48)
    assert patches.pixels.shape[1:] == (48, 48, 3)
    assert 0 < len(patches) <= 75  # 25 places in each of the three detailed pictures, none from the others
    assert np.array_equal(patches.pixels, load_patches(pictures, 48).pixels)
    assert len(list((pictures / ".patches").iterdir())) == 1


def test_a_folder_without_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoPatchesError, match="no pictures in"):
        load_patches(tmp_path / "nowhere", 48)
    Image.new("RGB", (480, 480), "grey").save(tmp_path / "flat.png")
    with pytest.raises(NoPatchesError, match="smaller than 48x48 or too flat"):
        load_patches(tmp_path, 48)


def test_a_batch_depends_on_seed_and_step_alone(pictures: Path) -> None:
    patches = load_patches(pictures, 48)
    lr, hr = Batches(patches, 2, SETTINGS)[7]
    assert lr.shape == (4, 3, 24, 24)
    assert hr.shape == (4, 3, 48, 48)
    assert float(hr.max()) <= 1
    again = Batches(patches, 2, SETTINGS)[7]
    assert torch.equal(lr, again[0])
    assert not torch.equal(lr, Batches(patches, 2, SETTINGS)[8][0])
    assert not torch.equal(lr, Batches(patches, 2, replace(SETTINGS, seed=1))[7][0])


def test_photographs_are_drawn_as_often_as_asked(tmp_path: Path) -> None:
    for package, value in (("mate-backgrounds", 200), ("torcs-data", 50)):
        (tmp_path / package).mkdir()
        picture = detailed(0).astype(np.int16) - 128 + value
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / package / "picture.png")
    patches = load_patches(tmp_path, 48)
    assert 0 < patches.photograph.sum() < len(patches)
    few = Patches(patches.pixels[-3:], patches.photograph[-3:])
    assert not few.photograph.any()

    def light(patches: Patches, share: float) -> float:
        settings = replace(SETTINGS, photograph_share=share, batch_size=256)
        return float((Batches(patches, 2, settings)[0][1].mean((1, 2, 3)) > 0.5).float().mean())

    # One patch in ten is made of colour alone.
    assert light(patches, 0) < 0.12
    assert light(patches, 1) > 0.88
    assert 0.6 < light(patches, 0.7) < 0.8
    assert light(few, 0.7) < 0.12, "where there are none, the others are drawn"
    pack(patches, tmp_path / "some.patches", megabytes=0.02)
    packed = load_patches(tmp_path / "some.patches", 48)
    assert len(packed) < len(patches)
    assert packed.photograph[0], "a pack begins with the photographs"


def test_contrast_is_lowered_around_the_mean(pictures: Path) -> None:
    patches = load_patches(pictures, 48)
    sharp, soft = (
        Batches(patches, 2, replace(SETTINGS, soft_share=share, batch_size=64))[0][1] for share in (0.0, 1.0)
    )

    def contrast(batch: torch.Tensor) -> float:
        return float(batch.std((2, 3)).mean())

    assert 1 / 8 * contrast(sharp) < contrast(soft) < 0.8 * contrast(sharp)
    assert soft.mean() == pytest.approx(float(sharp.mean()), abs=0.1)


def test_an_enlarged_patch_has_less_detail(pictures: Path) -> None:
    patches = load_patches(pictures, 48)
    sharp, enlarged = (
        Batches(patches, 2, replace(SETTINGS, enlarged_share=share, batch_size=64))[0][1] for share in (0.0, 1.0)
    )

    def detail(batch: torch.Tensor) -> float:
        return float(batch.diff(dim=3).abs().mean())

    assert enlarged.shape == sharp.shape
    assert detail(enlarged) < 0.8 * detail(sharp)
    assert enlarged.mean() == pytest.approx(float(sharp.mean()), abs=0.1)


def test_drawn_pixels_are_blocks_of_one_colour(pictures: Path) -> None:
    patches = load_patches(pictures, 48)
    for hr in Batches(patches, 2, replace(SETTINGS, pixelated_share=1.0))[0][1]:
        changes = {axis: (hr.diff(dim=axis) != 0).any(dim=0).any(dim=2 - axis).nonzero().flatten() for axis in (1, 2)}
        for edges in changes.values():
            assert len(edges) >= 1
            assert len(edges.diff().unique()) <= 1, "all blocks of a patch have one size"


def test_packed_patches_are_nearly_the_patches(pictures: Path, tmp_path: Path) -> None:
    patches = load_patches(pictures, 48)
    path = tmp_path / "some.patches"
    assert pack(patches, path, megabytes=10) == len(patches)
    unpacked = load_patches(path, 48)
    assert unpacked.pixels.shape == patches.pixels.shape
    order = np.random.default_rng(0).permutation(len(patches))
    assert min(psnr(own, patches.pixels[i]) for own, i in zip(unpacked.pixels, order, strict=True)) > 38
    assert pack(patches, path, megabytes=0.02) < len(patches)
    assert path.stat().st_size < 0.03 * 2**20
    with pytest.raises(ValueError, match=r"ends in \.patches"):
        pack(patches, tmp_path / "some.bin", megabytes=1)


def test_packed_photographs_keep_their_grain(pictures: Path, tmp_path: Path) -> None:
    drawn = load_patches(pictures, 48)
    patches = Patches(drawn.pixels, np.ones(len(drawn), np.bool_))
    pack(patches, tmp_path / "photographs.patches", megabytes=10)
    unpacked = load_patches(tmp_path / "photographs.patches", 48)
    order = np.random.default_rng(0).permutation(len(patches))
    assert min(psnr(own, patches.pixels[i]) for own, i in zip(unpacked.pixels, order, strict=True)) >= 50
