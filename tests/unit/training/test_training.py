"""Training: the degradation, the patches, the loop and its resumption."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file as load_tensors
from torch import nn

from models.bicubic_plus_plus import BicubicPlusPlus
from models.blocks.rep import EdgeConv, OnlineConv, RepVGGConv, WideConv
from models.recipe import Loss, Recipe, two_stages
from models.registry import get, specs
from models.reparam import reparameterise
from models.spec import ModelSpec
from models.weights import WeightsError, facts, load_file, save, weights_path
from training.card import measured_before, training_facts
from training.comparison import side_by_side
from training.data import pictures_of
from training.degradation import TRAINING, Degradation, crop_to_multiple, degrade
from training.losses import LOSSES
from training.metrics import psnr, psnr_y, ssim
from training.optimiser import Optimiser
from training.pack import Patches, pack
from training.patches import Batches, NoPatchesError, load_patches
from training.pictures import list_images, open_rgb, open_true_rgb
from training.pruning import prune
from training.quality import evaluate, lost_in_half
from training.settings import Settings
from training.start import assign, solve_last_convolution
from training.trainer import CheckpointError, Trainer

SETTINGS = Settings(
    steps=40,
    batch_size=4,
    hr_patch=48,
    warmup_steps=5,
    clip_gradient_norm=1.0,
    enlarged_share=0.0,
    pixelated_share=0.0,
    soft_share=0.0,
)


def detailed(seed: int, side: int = 240) -> NDArray[np.uint8]:
    """A picture with as much detail as a LR frame can carry, so that there is something to win over bicubic."""
    noise = np.random.default_rng(seed).integers(90, 166, (side // 2, side // 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.LANCZOS))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(3):
        Image.fromarray(detailed(seed)).save(folder / f"{seed}.png")
    return folder


def test_degradation_is_pillows_bicubic() -> None:
    hr = detailed(0)
    expected = Image.fromarray(hr).resize((80, 80), Image.Resampling.BICUBIC)
    assert np.array_equal(degrade(hr, 3), np.asarray(expected))


def test_jpeg_changes_the_frame_but_not_by_much() -> None:
    hr = detailed(0)
    clean, compressed = degrade(hr, 2), degrade(hr, 2, jpeg_quality=90)
    assert 20 < psnr(compressed, clean) < 60


def test_metrics_know_equal_pictures_and_grow_worse_with_noise() -> None:
    rng = np.random.default_rng(0)
    picture = detailed(0)
    noisy = {sigma: np.clip(picture + rng.normal(0, sigma, picture.shape), 0, 255).astype(np.uint8) for sigma in (2, 8)}
    assert psnr(picture, picture) == psnr_y(picture, picture) == float("inf")
    assert ssim(picture, picture) == pytest.approx(1)
    for metric in (psnr, psnr_y, ssim):
        assert metric(noisy[2], picture) > metric(noisy[8], picture)


def test_luma_weighs_red_and_blue_as_said() -> None:
    grey = np.full((32, 32, 3), 128, np.uint8)
    red = grey.copy()
    red[..., 0] += 10
    luma_difference = 10 * 65.481 / 255
    assert psnr_y(red, grey) == pytest.approx(20 * np.log10(255 / luma_difference), abs=1e-3)
    swapped = 10 * 24.966 / 255
    assert psnr_y(red, grey, organisers=True) == pytest.approx(20 * np.log10(255 / swapped), abs=1e-3)


def test_ssim_is_the_usual_one() -> None:
    """Against the formula of Wang et al. (2004), written out: an 11x11 Gaussian, where it fits into the picture."""
    noisy, picture = detailed(1), detailed(0)
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = torch.from_numpy(np.outer(taps, taps) / taps.sum() ** 2)[None, None]

    def smooth(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x[:, None], window)

    x, y = (torch.from_numpy(each.astype(np.float64)).permute(2, 0, 1) for each in (noisy, picture))
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    scores = (2 * mean_x * mean_y + c1) * (2 * (smooth(x * y) - mean_x * mean_y) + c2)
    scores = scores / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    assert ssim(noisy, picture) == pytest.approx(float(scores.mean()), abs=1e-6)


def test_details_are_shown_where_the_pictures_differ_most() -> None:
    first = np.zeros((60, 100, 3), np.uint8)
    last = first.copy()
    last[30:32, 45:50] = 200
    last[0, 0] = 255
    sheet = np.asarray(side_by_side([{"a": first, "b": last}, {"a": last, "b": first}], 20, 10))
    assert sheet.shape == (2 * (20 + 28), 2 * 40 + 8, 3)
    upper, lower = sheet[28:48], sheet[76:96]
    assert (upper[:, :40] == 0).all()
    assert (upper[:4, 48 + 10 : 48 + 20] == 200).all(), "twice as large, from row 30 and column 40"
    assert np.array_equal(upper[:, :40], lower[:, 48:])


def test_full_chroma_keeps_colours_better() -> None:
    hr = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    clean = degrade(hr, 2)
    assert psnr(degrade(hr, 2, 90, "4:4:4"), clean) > psnr(degrade(hr, 2, 90, "4:2:0"), clean) + 1


def test_a_degradation_is_drawn_from_its_ranges() -> None:
    hr = detailed(0)
    assert np.array_equal(TRAINING["clean"].apply(hr, 2, np.random.default_rng(0)), degrade(hr, 2))
    always = Degradation(jpeg_share=1, jpeg_quality=(70, 71), full_chroma_share=1)
    possible = [degrade(hr, 2, quality, "4:4:4") for quality in (70, 71)]
    drawn = [always.apply(hr, 2, np.random.default_rng(seed)) for seed in range(12)]
    met = {next(i for i, frame in enumerate(possible) if np.array_equal(frame, each)) for each in drawn}
    assert met == {0, 1}


def test_a_frame_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="100x101 cannot be divided by 2"):
        degrade(np.zeros((101, 100, 3), np.uint8), 2)
    assert crop_to_multiple(np.zeros((101, 100, 3), np.uint8), 3).shape == (99, 99, 3)


def test_patches_are_cut_once_and_flat_ones_are_left_out(pictures: Path) -> None:
    Image.new("RGB", (480, 480), "grey").save(pictures / "flat.png")
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    patches = load_patches(pictures, 48)
    assert patches.pixels.shape[1:] == (48, 48, 3)
    assert 0 < len(patches) <= 75  # 25 places in each of the three detailed pictures, none from the others
    assert np.array_equal(patches.pixels, load_patches(pictures, 48).pixels)
    assert len(list((pictures / ".patches").iterdir())) == 1


def test_pictures_without_colour_detail_are_reduced(tmp_path: Path) -> None:
    picture = Image.fromarray(detailed(0))
    for subsampling, side in (("4:4:4", 240), ("4:2:0", 120), ("4:2:2", 120)):
        picture.save(tmp_path / "picture.jpg", subsampling=subsampling, quality=95)
        assert open_true_rgb(tmp_path / "picture.jpg").shape == (side, side, 3)
        assert open_rgb(tmp_path / "picture.jpg").shape == (240, 240, 3)
    picture.convert("L").save(tmp_path / "grey.jpg")
    assert open_true_rgb(tmp_path / "grey.jpg").shape == (240, 240, 3)


def test_a_folder_without_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoPatchesError, match="no pictures in"):
        load_patches(tmp_path / "nowhere", 48)
    Image.new("RGB", (480, 480), "grey").save(tmp_path / "flat.png")
    with pytest.raises(NoPatchesError, match="too small or too flat"):
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


def test_kernels_go_by_muon_and_the_rest_by_adam() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 1, 1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimiser = Optimiser(network, 0.01, (0.9, 0.99))
    network(torch.rand(1, 3, 8, 8)).square().mean().backward()
    optimiser.step(0.01)
    for name, tensor in network.state_dict().items():
        change = (tensor - before[name]).flatten(1) if tensor.ndim > 1 else tensor - before[name]
        if name in ("0.weight", "2.weight"):
            # Where the gradient points at all, every direction is gone as far as the others; Adam's would differ.
            lengths = torch.linalg.svdvals(change) / (0.2 * 0.01 * max(change.shape) ** 0.5)
            moved = lengths[lengths > 0.1]
            assert len(moved) >= 3
            assert moved == pytest.approx(1, abs=0.45), name
        else:
            assert change.abs() == pytest.approx(0.01, rel=1e-3), name


def test_training_beats_bicubic_on_what_it_saw(pictures: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=400, batch_size=8, ema_decay=0.9)
    batches = Batches(load_patches(pictures, 48), 2, settings)
    trainer = Trainer(get("runet"), 2, "clean", settings, runs=tmp_path / "runs")
    trained = trainer.run(batches, [], workers=0)
    gains = [result.gain for result in evaluate(trained.network, sorted(pictures.glob("*.png")), 2)]
    assert min(gains) > 0.3


def test_a_resumed_run_ends_as_an_unbroken_one(pictures: Path, tmp_path: Path) -> None:
    batches = Batches(load_patches(pictures, 48), 2, SETTINGS)

    class StoppedError(Exception):
        pass

    class Stopping(Batches):
        def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
            if step == 25:
                raise StoppedError
            return super().__getitem__(step)

    def trainer(name: str) -> Trainer:
        return Trainer(get("runet"), 2, "clean", SETTINGS, runs=tmp_path / name)

    whole = trainer("whole").run(batches, [], checkpoint_every=10, workers=0)
    with pytest.raises(StoppedError):
        trainer("broken").run(Stopping(load_patches(pictures, 48), 2, SETTINGS), [], checkpoint_every=10, workers=0)
    resumed = trainer("broken").run(batches, [], checkpoint_every=10, workers=0)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_refused(pictures: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=2)
    patches = load_patches(pictures, 48)
    Trainer(get("runet"), 2, "clean", settings, runs=tmp_path).run(Batches(patches, 2, settings), [], workers=0)
    other = replace(settings, steps=3)
    with pytest.raises(CheckpointError, match="made with other settings"):
        Trainer(get("runet"), 2, "clean", other, runs=tmp_path).run(Batches(patches, 2, other), [], workers=0)


def test_learning_rate_warms_up_and_ends_near_zero() -> None:
    settings = Settings(steps=1000, warmup_steps=100)
    first, last = settings.recipe.stages
    rates = [settings.learning_rate(step) for step in range(1000)]
    assert rates[0] < rates[50] < rates[99]
    assert max(rates) <= first.learning_rate
    change = round(1000 * first.share)
    assert [settings.stage(step)[1] for step in (0, change - 1, change, 999)] == [first, first, last, last]
    assert rates[change - 1] == pytest.approx(last.learning_rate, rel=0.01)
    assert rates[999] < 1e-7


def test_compressed_frames_have_decibels_from_beginning_to_end() -> None:
    for first in LOSSES:
        recipe = two_stages(first, "l2").with_loss("psnr")
        assert [stage.loss for stage in recipe.stages] == ["psnr", "psnr"]
        assert [stage.learning_rate for stage in recipe.stages] == [
            stage.learning_rate for stage in two_stages(first).stages
        ]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_prefers_the_better_picture(name: Loss) -> None:
    torch.manual_seed(0)
    target = torch.rand(2, 3, 16, 16)
    near, far = target + 0.01 * torch.randn_like(target), target + 0.1 * torch.randn_like(target)
    assert LOSSES[name](near, target) < LOSSES[name](far, target)


@pytest.mark.parametrize("spec", [pytest.param(spec, id=spec.name) for spec in specs().values() if spec.learned])
def test_the_last_convolution_is_solved(spec: ModelSpec, pictures: Path) -> None:
    """One solution is worth more than many steps: the error on the batches it was solved on falls at once."""
    for scale in spec.scales:
        torch.manual_seed(1)
        network = spec.build(scale)
        batches = [Batches(load_patches(pictures, 48), scale, SETTINGS)[step] for step in range(4)]
        before = error(network, batches, spec.input_range)
        solved = solve_last_convolution(network, batches, spec.input_range)
        assert solved == (spec.name != "dh_isp"), "dh_isp ends in a sigmoid"
        if solved:
            # RUNet starts as bicubic and has less to win.
            assert error(network, batches, spec.input_range) < (0.95 if spec.name == "runet" else 0.5) * before


@pytest.mark.parametrize(("name", "last"), [("asconvsr", "tail"), ("qqcoin", "body.2"), ("rt4ksr", "tail.2")])
def test_the_last_convolution_is_given_the_frame(name: str, last: str) -> None:
    """From the features that random weights make, a linear map brings the pixels back."""
    torch.manual_seed(0)
    network = get(name).build(2)
    seen: list[torch.Tensor] = []
    network.get_submodule(last).register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    frame = nn.functional.interpolate(torch.rand(4, 3, 12, 12), scale_factor=4)
    with torch.no_grad():
        network(frame * get(name).input_range)
    side = frame.shape[-1] // seen[0].shape[-1]
    pixels, features = (
        x.permute(0, 2, 3, 1).flatten(0, 2).double() for x in (nn.functional.pixel_unshuffle(frame, side), seen[0])
    )
    features = nn.functional.pad(features, (0, 1), value=1.0)
    found = features @ torch.linalg.lstsq(features, pixels, driver="gelsd").solution
    assert (found - pixels).square().mean().sqrt() < 0.05


def error(network: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]], input_range: float) -> float:
    with torch.no_grad():
        outputs = [network.train()(lr * input_range) / input_range for lr, _ in batches]
    return float(np.mean([(y - hr).square().mean() for y, (_, hr) in zip(outputs, batches, strict=True)]))


def test_a_solved_kernel_is_what_the_layer_computes() -> None:
    for layer in (OnlineConv(4, 12), EdgeConv(4, 12), RepVGGConv(4, 12), WideConv(4, 12, width=64, projection=True)):
        biased = layer.kernel_and_bias()[1] is not None
        kernel, bias = torch.randn(12, 4, 3, 3), torch.randn(12) if biased else None
        with torch.no_grad():
            assign(layer, kernel, bias)
            now, now_bias = layer.kernel_and_bias()
        torch.testing.assert_close(now, kernel, rtol=1e-4, atol=1e-4)
        if bias is not None:
            torch.testing.assert_close(now_bias, bias, rtol=1e-4, atol=1e-4)


def test_a_budget_becomes_a_number_of_steps(pictures: Path, tmp_path: Path) -> None:
    batches = Batches(load_patches(pictures, 48), 2, SETTINGS)
    trainer = Trainer(get("qqcoin"), 2, "clean", SETTINGS, runs=tmp_path)
    short, long = (trainer.steps_within(seconds, batches, workers=0) for seconds in (2, 40))
    assert 2 <= short < long
    trainer.run(batches, [], workers=0)
    assert trainer.steps_within(1000, batches) == SETTINGS.steps, "a run that goes on keeps the steps it had"


def test_a_teacher_is_imitated(pictures: Path, tmp_path: Path) -> None:
    """RUNet starts as bicubic. Taught by bicubic alone it stays so; taught by the pictures it does not."""
    bicubic = get("bicubic").build(2)
    settings = replace(SETTINGS, teacher_share=1.0, batch_size=2)
    batches = Batches(load_patches(pictures, 48), 2, settings)
    lr, _ = batches[0]
    departures: list[float] = []
    for name, teacher in (("taught", bicubic), ("free", None)):
        trainer = Trainer(get("runet"), 2, "clean", settings, runs=tmp_path / name, teacher=teacher)
        trained = trainer.run(batches, [], workers=0)
        with torch.no_grad():
            departures.append(float((trained.network(lr) - bicubic(lr)).abs().mean()))
    taught, free = departures
    assert taught < 0.2 * free


@pytest.mark.parametrize("spec", [pytest.param(spec, id=spec.name) for spec in specs().values() if spec.learned])
def test_every_method_trains(spec: ModelSpec, pictures: Path, tmp_path: Path) -> None:
    """On one batch seen again and again, the loss falls for every method at each of its scales."""
    assert sum(stage.share for stage in spec.recipe.stages) == pytest.approx(1)
    # From random weights, for a few steps: at a higher rate, but where kernels are mixed for each frame.
    faster = 1 if spec.name == "asconvsr" else 8
    recipe = Recipe(tuple(replace(stage, learning_rate=faster * stage.learning_rate) for stage in spec.recipe.stages))
    for scale in spec.scales:
        settings = replace(SETTINGS, recipe=recipe, batch_size=2, steps=30, warmup_steps=3)
        lr, hr = Batches(load_patches(pictures, 48), scale, settings)[0]
        trainer = Trainer(spec, scale, "compressed", settings, runs=tmp_path)
        losses = [trainer.step(lr, hr).item() for _ in range(25)]
        if spec.recipe.stages[0].loss == "psnr":
            losses = [10 ** (loss / 10) for loss in losses]
        assert np.isfinite(losses).all()
        assert max(losses[-3:]) < 0.95 * losses[0], f"x{scale}: {losses}"


def test_pruning_takes_the_channels_that_are_missed_least(pictures: Path) -> None:
    torch.manual_seed(0)
    network = BicubicPlusPlus(3, channels=20)
    batches = [Batches(load_patches(pictures, 48), 3, SETTINGS)[step] for step in range(2)]
    with torch.no_grad():  # four channels of each group that nothing depends on
        network.tail.weight[:, 16:] = 0
        network.get_parameter("body.0.weight")[:, 16:] = 0
        network.get_parameter("body.2.weight")[:, 16:] = 0
    pruned = prune(network, 16, batches)
    assert (pruned.tail.in_channels, network.tail.in_channels) == (16, 20)

    def loss(each: nn.Module) -> float:
        with torch.no_grad():
            return float(sum((each(lr) - hr).abs().mean() for lr, hr in batches))

    # Without those four the picture is the same; what was taken instead, if anything, made it better.
    assert loss(pruned) <= loss(network) + 1e-5


def test_a_pruned_run_goes_from_wide_to_narrow(pictures: Path, tmp_path: Path) -> None:
    pack(load_patches(pictures, 192), tmp_path / "train.patches", megabytes=1)
    folders = {"images": tmp_path / "train.patches", "test": tmp_path, "runs": tmp_path / "runs", "weights": tmp_path}
    options = [f"--{name}={path}" for name, path in {**folders, "validation": tmp_path / "nothing"}.items()]
    options += ["--model=bicubic_plus_plus", "--scale=3", "--profile=clean", "--prune-from=34", "--steps=6"]
    done = subprocess.run(
        [sys.executable, "-m", "training", *options], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    path = weights_path(get("bicubic_plus_plus"), 3, "clean", tmp_path)
    assert load_file(get("bicubic_plus_plus"), 3, path).get_parameter("tail.weight").shape[1] == 32
    assert "--steps 6 --prune-from 34" in path.with_suffix(".md").read_text()
    assert (tmp_path / "runs" / "bicubic_plus_plus_34_x3_clean").is_dir()


def test_the_zoo_is_trained_in_processes_of_its_own(pictures: Path, tmp_path: Path) -> None:
    pack(load_patches(pictures, 192), tmp_path / "train.patches", megabytes=1)
    folders = {"images": tmp_path / "train.patches", "test": tmp_path, "runs": tmp_path / "runs", "weights": tmp_path}
    options = [f"--{name}={path}" for name, path in {**folders, "validation": tmp_path / "nothing"}.items()]
    command = [sys.executable, "-m", "training", "zoo", "--models=qqcoin,bicubic_plus_plus", "--jobs=2"]
    command += ["--budget=1s", "--profile=compressed"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {
        "qqcoin_x2_compressed",
        "bicubic_plus_plus_x3_compressed",
    }
    again = subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=60)
    assert not again.stdout, "what has weights is left alone"
    (tmp_path / "train.patches").unlink()
    failed = subprocess.run([*command, *options, "--again"], capture_output=True, text=True, check=False, timeout=150)
    assert failed.returncode == 2
    assert "qqcoin_x2_compressed: FAILED training: no pictures in" in failed.stdout
    assert failed.stderr.startswith("training: 2 of 2 runs failed; their logs are in ")


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


def test_a_run_leaves_weights_with_their_history_and_a_card(pictures: Path, tmp_path: Path) -> None:
    pack(load_patches(pictures, 192), tmp_path / "train.patches", megabytes=1)
    folders = {"images": tmp_path / "train.patches", "test": pictures, "runs": tmp_path, "weights": tmp_path}
    options = [f"--{name}={path}" for name, path in {**folders, "validation": tmp_path / "nothing"}.items()]
    command = [sys.executable, "-m", "training", *options, "--model=qqcoin", "--profile=compressed", "--budget=2s"]
    command += ["--batch-size=2", "--loss=l1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    path = weights_path(get("qqcoin"), 2, "compressed", tmp_path)
    assert "settings" in facts(path)
    card = path.with_suffix(".md").read_text()
    assert "python -m training --model qqcoin --scale 2 --profile compressed --steps " in card
    assert " --batch-size 2 --loss l1`" in card
    assert "- Stored as float32: there were no validation pictures to try float16 on" in card
    assert card.index("Frames: JPEG 90.") < card.index("Frames: clean.")
    assert card.count("| **mean** | all |") == 2
    path.with_suffix(".md").unlink()
    again = [sys.executable, "-m", "training", "card", f"--test={pictures}", f"--weights={tmp_path}"]
    subprocess.run([*again, "--model=all"], check=True, timeout=120)
    assert path.with_suffix(".md").read_text() == card
    refused = subprocess.run(
        [*again, "--model=qqcoin", "--profile=clean"], check=False, timeout=60, capture_output=True
    )
    assert refused.returncode == 2
    assert f"training: no weights of qqcoin for profile 'clean' in {tmp_path}" in refused.stderr.decode()


def test_float16_is_stored_where_the_pictures_lose_nothing(pictures: Path, tmp_path: Path) -> None:
    network = get("runet").build(2)
    measure = partial(evaluate, images=list_images(pictures), scale=2)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(tensor.half())
        assert lost_in_half(network, measure) == 0.0
        next(network.parameters())[0] = 1e6
    lost = lost_in_half(network, measure)
    assert not lost < 0.001  # or not a number

    folders = {"images": pictures, "validation": pictures, "test": tmp_path / "none", "runs": tmp_path}
    options = [f"--{name}={path}" for name, path in {**folders, "weights": tmp_path}.items()]
    command = [sys.executable, "-m", "training", *options, "--model=bicubic_plus_plus", "--scale=3", "--steps=2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    path = weights_path(get("bicubic_plus_plus"), 3, "compressed", tmp_path)
    told = facts(path)["stored_as"]
    assert f"- Stored as {told}" in path.with_suffix(".md").read_text()
    dtypes = {f"{tensor.dtype}".removeprefix("torch.") for tensor in load_tensors(path).values()}
    assert dtypes == {told.split(":")[0]}


def test_a_card_takes_what_was_measured_of_these_weights_and_no_others(pictures: Path, tmp_path: Path) -> None:
    spec = get("qqcoin")
    path = weights_path(spec, 2, "compressed", tmp_path)
    save(spec.build(2), path, training_facts(SETTINGS, 1, 1, "float32"))
    command = [sys.executable, "-m", "benchmark", "quality", "--model=qqcoin", "--json"]
    command += [f"--weights={tmp_path}", f"--images={pictures}"]
    report = tmp_path / "quality.json"
    report.write_text(subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stdout)

    measured = measured_before(report, spec, 2, "compressed", path)
    truly = evaluate(
        reparameterise(load_file(spec, 2, path)), list_images(pictures), 2, input_range=255.0, jpeg_quality=90
    )
    assert measured == {"JPEG 90": truly}
    save(spec.build(2), path, training_facts(SETTINGS, 2, 1, "float32"))
    with pytest.raises(WeightsError, match=r"has nothing of qqcoin_x2_compressed\.safetensors as it is now"):
        measured_before(report, spec, 2, "compressed", path)
    report.write_text("[")
    with pytest.raises(WeightsError, match="is no report of 'python -m benchmark quality --json'"):
        measured_before(report, spec, 2, "compressed", path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nope"], "training: unknown model 'nope'; known are: "),
        (["--scale", "5"], "training: model 'runet' has no x5; its scales are: x2, x3"),
        (["--profile", "odd"], "training: unknown profile 'odd'; known are: clean, compressed"),
        (["--images", "/nowhere"], "training: no pictures in /nowhere: name a folder with --images"),
        (["--loss", "odd"], "training: --loss 'odd': known are l1, charbonnier, l2, psnr, l1+fft, l2+fft"),
        (["--budget", "soon"], "training: --budget 'soon': a number and a unit are expected, e.g. 90s, 20m or 1.5h"),
        (["--teacher", "lfdn"], "training: --teacher lfdn: it takes values in [0, 255], both must take [0, 1]"),
        (["--prune-from", "40"], "training: --prune-from 40: only bicubic_plus_plus is pruned, from more than 32"),
        (["--model", "bicubic"], "training: model 'bicubic' has nothing to train"),
        (["--start-from", "/nowhere"], "training: no weights at /nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "training", "--model", "runet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1
