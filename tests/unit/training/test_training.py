"""Training: the loop and its resumption, its recipes, its command line, the weights and cards it leaves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as load_tensors
from torch import nn

from models.bicubic_plus_plus import BicubicPlusPlus
from models.recipe import Loss, Recipe, two_stages
from models.registry import get, specs
from models.reparam import reparameterise
from models.spec import ModelSpec
from models.weights import WeightsError, facts, load_file, save, weights_path
from tests.pictures import SETTINGS
from training.card import measured_before, training_facts
from training.losses import LOSSES
from training.optimiser import Optimiser
from training.pack import pack
from training.patches import Batches, load_patches
from training.pictures import list_images
from training.pruning import prune
from training.quality import evaluate, lost_in_half
from training.settings import Settings, recipe_for
from training.trainer import CheckpointError, Trainer


def test_kernels_go_by_muon_and_the_rest_by_adam() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 1, 1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimiser = Optimiser(network, (0.9, 0.99))
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


def test_compressed_frames_have_one_loss_from_beginning_to_end() -> None:
    for first in LOSSES:
        own = two_stages(first, "l2")
        assert recipe_for("clean", own) == own
        recipe = recipe_for("compressed", own)
        assert [stage.loss for stage in recipe.stages] == ["rmse", "rmse"]
        assert [stage.learning_rate for stage in recipe.stages] == [
            stage.learning_rate for stage in two_stages(first).stages
        ]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_prefers_the_better_picture(name: Loss) -> None:
    torch.manual_seed(0)
    target = torch.rand(2, 3, 16, 16)
    near, far = target + 0.01 * torch.randn_like(target), target + 0.1 * torch.randn_like(target)
    assert LOSSES[name](near, target) < LOSSES[name](far, target)


def test_no_patch_outweighs_another_by_the_root_of_its_error() -> None:
    """A smooth patch pulls as hard as one with edges, by decibels as much harder as its error is smaller."""
    torch.manual_seed(0)
    target = torch.rand(2, 3, 16, 16)
    output = target + torch.tensor([0.001, 0.1])[:, None, None, None] * torch.randn_like(target)
    pulls: dict[Loss, float] = {}
    for name in ("rmse", "psnr"):
        given = output.clone().requires_grad_()
        LOSSES[name](given, target).backward()
        assert given.grad is not None
        smooth, edges = given.grad.flatten(1).norm(dim=1)
        pulls[name] = float(smooth / edges)
    assert 0.9 < pulls["rmse"] < 1.1
    assert 80 < pulls["psnr"] < 120


def test_a_budget_becomes_a_number_of_steps(pictures: Path, tmp_path: Path) -> None:
    batches = Batches(load_patches(pictures, 48), 2, SETTINGS)
    trainer = Trainer(get("qqcoin"), 2, "clean", SETTINGS, runs=tmp_path)
    short, long = (trainer.steps_within(seconds, batches, workers=0) for seconds in (2, 40))
    assert 2 <= short < long
    trainer.run(batches, [], workers=0)
    assert trainer.steps_within(1000, batches) == SETTINGS.steps, "a run that goes on keeps the steps it had"


def test_trained_weights_keep_the_statistics_of_their_batch_normalisation(pictures: Path, tmp_path: Path) -> None:
    spec, settings = get("repnet"), replace(SETTINGS, batch_size=1)
    batches = Batches(load_patches(pictures, 48), 2, settings)

    def statistics(network: nn.Module) -> torch.Tensor:
        return torch.cat([tensor for name, tensor in network.named_buffers() if "running" in name])

    first = Trainer(spec, 2, "compressed", settings, runs=tmp_path / "first").run(batches, [], workers=0).network
    assert not torch.equal(statistics(first), statistics(spec.build(2)))
    on = Trainer(spec, 2, "compressed", settings, runs=tmp_path / "on", start=first).run(batches, [], workers=0).network
    assert torch.equal(statistics(on), statistics(first))
    kernel = "body.0.conv3.weight"
    assert not torch.equal(on.get_parameter(kernel), first.get_parameter(kernel))


def test_a_teacher_is_imitated(pictures: Path, tmp_path: Path) -> None:
    """RUNet starts as bicubic. Taught by bicubic alone it stays so; taught by the pictures it does not.

    Its input range is not bicubic's, and a teacher may have yet another one.
    """
    bicubic = get("bicubic").build(2)
    spec = get("runet")
    settings = replace(SETTINGS, teacher_share=1.0, batch_size=2)
    batches = Batches(load_patches(pictures, 48), 2, settings)
    lr, _ = batches[0]
    departures: list[float] = []
    for name, teacher, teacher_range in (("taught", bicubic, 1.0), ("dark", _Dark(), 256.0), ("free", None, 1.0)):
        trainer = Trainer(
            spec, 2, "clean", settings, runs=tmp_path / name, teacher=teacher, teacher_range=teacher_range
        )
        trained = trainer.run(batches, [], workers=0)
        with torch.no_grad():
            sr = trained.network(lr * spec.input_range) / spec.input_range
            departures.append(float((sr - bicubic(lr)).abs().mean()))
    taught, dark, free = departures
    assert taught < 0.2 * free
    assert dark < 0.2 * free


class _Dark(torch.nn.Module):
    """Bicubic for what reaches above 1; everything else is black to it."""

    def __init__(self) -> None:
        super().__init__()
        self.bicubic = get("bicubic").build(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Upscale x."""
        return self.bicubic(x) * (x.amax() > 1)


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
    assert "--steps 6 --hr-patch 192 --prune-from 34" in path.with_suffix(".md").read_text()
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
    assert " --batch-size 2 --hr-patch 192 --loss l1`" in card, "the side is the packed patches' own"
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
    command += ["--hr-patch=192"]
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
        (["--loss", "odd"], "training: --loss 'odd': known are l1, charbonnier, l2, psnr, rmse, l1+fft, l2+fft"),
        (["--budget", "soon"], "training: --budget 'soon': a number and a unit are expected, e.g. 90s, 20m or 1.5h"),
        (["--teacher", "lfdn"], "training: no weights at "),
        (["--hr-patch", "100"], "training: --hr-patch 100: not a multiple of 12"),
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
