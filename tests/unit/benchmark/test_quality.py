"""The quality benchmark on pictures of our own: the numbers, the page, the refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmark.quality.command import command, places
from benchmark.quality.measure import ImageScores, Quality
from benchmark.quality.page import correlations, rank_correlation
from models.registry import get
from models.weights import Profile, save, weights_path
from training.data import category_of

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "samples" / "nuthatch_4k.jpg"
KEYS = {
    "model",
    "scale",
    "jpeg",
    "images",
    "psnr_rgb",
    "psnr_rgb_bicubic",
    "psnr_y",
    "psnr_y_bicubic",
    "ssim",
    "ssim_bicubic",
    "per_image",
}


def quality(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmark", "quality", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=170)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two crops of the sample, one in a folder that names its kind."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "enlightenment-data").mkdir()
    with Image.open(SAMPLE) as image:
        image.crop((1200, 600, 1680, 960)).save(folder / "enlightenment-data" / "bird.png")
        image.crop((2000, 600, 2480, 960)).save(folder / "branch.png")
    return folder


def test_a_network_is_measured_beside_bicubic(pictures: Path) -> None:
    done = quality("--model", "runet", "--scale", "2", "--profile", "clean", "--images", str(pictures), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.keys() >= KEYS
    assert (report["jpeg"], report["images"]) == (None, 2)
    assert report["psnr_rgb"] > report["psnr_rgb_bicubic"] + 0.1
    assert report["psnr_y"] > report["psnr_y_bicubic"]
    assert report["ssim"] > report["ssim_bicubic"]
    assert {each["image"]: each["category"] for each in report["per_image"]} == {
        "bird": "photographs",
        "branch": "pictures",
    }
    assert report["psnr_rgb"] == pytest.approx(np.mean([each["psnr_rgb"] for each in report["per_image"]]), abs=1e-4)


def test_jpeg_frames_are_worse(pictures: Path) -> None:
    arguments = ["--model", "runet", "--profile", "clean", "--images", str(pictures), "--json"]
    clean, compressed = (
        json.loads(quality(*arguments, "--jpeg", jpeg).stdout)["psnr_rgb_bicubic"] for jpeg in ("0", "50")
    )
    assert clean > compressed + 0.3


def test_bicubic_gains_nothing_over_itself(pictures: Path) -> None:
    done = quality("--model", "bicubic", "--profile", "compressed", "--images", str(pictures), "--json")
    report = json.loads(done.stdout)
    assert report["jpeg"] == 90
    for key in ("psnr_rgb", "psnr_y", "ssim"):
        assert report[key] == report[f"{key}_bicubic"]


def test_all_that_have_weights_make_a_page(pictures: Path, tmp_path: Path) -> None:
    spec = get("repnet")
    torch.manual_seed(0)
    wanted: dict[Profile, tuple[int, ...]] = {"compressed": (2, 3), "clean": (2,)}
    for profile, scales in wanted.items():
        for scale in scales:
            network = spec.build(scale)
            nn.init.zeros_(network.get_parameter("body.4.conv1.weight" if scale == 2 else "body.6.conv1.weight"))
            save(network, weights_path(spec, scale, profile, tmp_path))
    page = tmp_path / "docs" / "quality.md"

    def measure(profile: Profile) -> Path:
        files = tmp_path / "docs" / "benchmarks" / f"quality-1.0-{profile}"
        command(
            model="all",
            profile=profile,
            images=pictures,
            weights=tmp_path,
            output=files,
            page_file=page,
            scale=2,
            jpeg=None,
            most=0,
            organisers=False,
            served=False,
            again=False,
            as_json=False,
        )
        return files

    files = measure("compressed")
    part = page.read_text()
    assert part.startswith("# Quality\n")
    assert part.count("| repnet |") == 2
    assert "1 photographs, 1 pictures" in part
    assert "(benchmarks/quality-1.0-compressed.png)" in part
    assert "- photographs: " in part
    assert "`bird.png` of Debian's `enlightenment-data` (BSD-2-Clause" in part
    assert "- text: " in part
    assert ">repnet</text>" in Path(f"{files}.svg").read_text()
    with Image.open(Path(f"{files}.png")) as sheet:
        assert sheet.size == (3 * 320 + 2 * 8, 2 * (192 + 28)), "a photograph and text; `pictures` have no known terms"

    report = json.loads(Path(f"{files}.json").read_text())
    assert [each["scale"] for each in report] == [2, 3]
    report[0]["per_image"][0]["psnr_y"] = 12.5
    Path(f"{files}.json").write_text(json.dumps(report))
    save(spec.build(3), weights_path(spec, 3, "compressed", tmp_path))
    measure("clean")
    measure("compressed")
    kept, anew = json.loads(Path(f"{files}.json").read_text())
    assert kept["per_image"][0]["psnr_y"] == 12.5, "weights that have not changed are not measured again"
    assert anew["psnr_rgb"] != report[1]["psnr_rgb"]
    text = page.read_text()
    assert text.count("| repnet |") == 3, "each profile keeps its part"
    assert text.index("## Profile `compressed`") < text.index("## Profile `clean`")


def test_other_pictures_have_a_page_of_their_own() -> None:
    files, page = places(ROOT / "data" / "test", "clean")
    assert (files, page) == (ROOT / "docs/benchmarks/quality-clean", ROOT / "docs/quality.md")
    files, page = places(Path("/my/captures_2.0/"), "clean")
    assert (files, page) == (ROOT / "docs/benchmarks/quality-captures_2.0-clean", ROOT / "docs/quality-captures_2.0.md")


def _measured(model: str, gain: float) -> Quality:
    score = ImageScores(40, 40, 40, 40, 0.9, image="a", category="art", psnr_rgb=40 + gain, psnr_y=40, ssim=0.9)
    return Quality(model, 2, "compressed", "", 90, False, (score,))


def test_ranks_are_held_against_the_reports() -> None:
    as_there = [_measured("r2cnet", 0.9), _measured("repnet", 0.5), _measured("runet", 0.2), _measured("rt4ksr", -0.1)]
    assert rank_correlation(as_there) == pytest.approx(1)
    backwards = [_measured(each.model, -each.average("gain")) for each in as_there]
    assert rank_correlation(backwards) == pytest.approx(-1)
    assert rank_correlation(as_there[:2]) is None, "two are no ranking"
    (line,) = correlations(as_there)
    assert "x2: Spearman's rank correlation" in line
    assert "+1.00, over 4 networks" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "/nowhere"], "benchmark: no pictures in /nowhere: name a folder"),
        (["--profile", "odd"], "benchmark: unknown profile 'odd'; known are: clean, compressed"),
        (["--model", "qqcoin", "--scale", "3"], "benchmark: model 'qqcoin' has no x3; its scales are: x2"),
        (["--weights", "/nowhere"], "benchmark: no weights at /nowhere/runet_x2_compressed.safetensors: train"),
        (["--weights", "/nowhere", "--model", "all"], "benchmark: no weights for profile 'compressed' in /nowhere"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments: list[str], words: str, pictures: Path) -> None:
    done = quality("--images", str(pictures), *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1


def test_a_picture_too_small_to_measure_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "dot.png")
    done = quality("--images", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.strip() == f"benchmark: {tmp_path / 'dot.png'}: SSIM needs 11x11 pixels, not 8x8"


def test_categories_follow_the_packages() -> None:
    assert category_of(Path("data/test/enlightenment-data/Peaks.jpg")) == "photographs"
    assert category_of(Path("data/test/gnome-backgrounds/wood-l.webp")) == "art"
    assert category_of(Path("my/Peaks.jpg")) == "pictures"
