"""The export: what it writes, and that it writes nothing it has not proved."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from torch import nn
from tritonclient.grpc import model_config_pb2 as _model_config_pb2
from typer.testing import CliRunner

from export.cli import app
from export.errors import MissingToolError, ParityError, RepositoryError
from export.exporter import Exported, export_variant
from export.graph import PixelFormat, deployed_graph, reference_graph
from export.repository import serve_versions, write_variant
from export.to_engine import FrameShapes, to_engine
from export.to_onnx import to_onnx
from export.triton_config import served_versions, triton_config
from export.verify import Parity, verify_onnx
from models.registry import get, specs
from models.weights import WEIGHTS_DIR, WeightsError, digest, load, weights_path
from training.degradation import degrade
from training.metrics import psnr
from training.quality import upscale
from upscale_client.colour import colour_maps

model_config_pb2: Any = _model_config_pb2
ROOT = Path(__file__).resolve().parents[3]
SPEC = get("runet")


def trained(scale: int = 2) -> nn.Module:
    torch.manual_seed(0)
    network = SPEC.build(scale).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    # Its signals are those of colours in [0, 1]: of larger ones float16 loses more than a grey level in random kernels.
    with torch.no_grad():
        network.get_parameter("head.0.weight").div_(SPEC.input_range)
        for name in ("tail.weight", "tail.bias"):
            network.get_parameter(name).mul_(SPEC.input_range)
    return network


def export(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "export/", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def nv12(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUNet x2 for NV12."""
    folder = tmp_path_factory.mktemp("nv12")
    return export_variant(SPEC, 2, "clean", pixel_format="nv12", repository=folder, weights=WEIGHTS_DIR).path


def test_a_variant_is_written_whole(repository: Path) -> None:
    folder = repository / "runet_x2_clean"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "1/manifest.json",
        "1/model.onnx",
        "config.pbtxt",
    ]
    assert sorted(path.name for path in repository.iterdir()) == ["runet_x2_clean", "runet_x3_clean"]
    manifest = json.loads((folder / "1" / "manifest.json").read_text())
    assert manifest["weights_sha256"] == digest(weights_path(SPEC, 2, "clean"))
    assert manifest["parameters"] == 66_764
    assert manifest["parity"]["max_difference"] <= manifest["parity"]["tolerance"] == 1
    assert {"torch", "onnx", "onnxruntime"} <= manifest["versions"].keys()


def test_the_config_is_what_triton_reads(repository: Path) -> None:
    text = (repository / "runet_x3_clean" / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("runet_x3_clean", "onnxruntime", 8)
    assert (config.input[0].name, list(config.input[0].dims)) == ("lr_frames", [-1, -1, 3])
    assert config.output[0].data_type == config.input[0].data_type == model_config_pb2.TYPE_UINT8
    assert not config.HasField("dynamic_batching")
    assert list(config.model_warmup[0].inputs["lr_frames"].dims) == [720, 1280, 3]
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "model": "runet",
        "scale": "3",
        "profile": "clean",
        "pixel_format": "rgb24",
        "trained": "true",
    }


def test_the_model_has_plain_uint8_borders(repository: Path) -> None:
    model = onnx.load(repository / "runet_x2_clean" / "1" / "model.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        dimensions = value.type.tensor_type.shape.dim
        assert dimensions[3].dim_value == 3
        assert all(dimension.dim_param.isidentifier() for dimension in list(dimensions)[:3])


def test_an_nv12_variant_declares_its_frames_and_their_colours(nv12: Path) -> None:
    assert nv12.name == "runet_x2_clean_nv12"
    assert json.loads((nv12 / "1" / "manifest.json").read_text())["pixel_format"] == "nv12"
    config = text_format.Parse((nv12 / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    uint8, fp32 = model_config_pb2.TYPE_UINT8, model_config_pb2.TYPE_FP32
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [
        ("lr_frames", uint8, [-1, -1]),
        ("colours", fp32, [2, 3, 4]),
    ]
    assert [(each.name, each.data_type, list(each.dims)) for each in config.output] == [("sr_frames", uint8, [-1, -1])]
    assert config.parameters["pixel_format"].string_value == "nv12"
    warm_up = config.model_warmup[0].inputs
    assert {name: (each.data_type, list(each.dims)) for name, each in warm_up.items()} == {
        "lr_frames": (uint8, [1620, 1920]),
        "colours": (fp32, [2, 3, 4]),
    }
    assert warm_up["colours"].zero_data
    model = onnx.load(nv12 / "1" / "model.onnx")
    assert [
        [side.dim_value or side.dim_param for side in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ] == [["batch", "rows", "width"], ["batch", 2, 3, 4], ["batch", "rows_out", "width_out"]]


@pytest.mark.parametrize(("rows", "width"), [(72, 47), (71, 48), (73, 48)])
def test_an_odd_nv12_frame_is_an_error_of_the_engine(nv12: Path, rows: int, width: int) -> None:
    session = onnxruntime.InferenceSession(nv12 / "1" / "model.onnx")
    colours = colour_maps("bt709", False)[None]
    with pytest.raises(Exception, match="Reshape"):
        session.run(None, {"lr_frames": np.zeros((1, rows, width), np.uint8), "colours": colours})
    (answer,) = session.run(None, {"lr_frames": np.zeros((1, 72, 48), np.uint8), "colours": colours})
    assert np.asarray(answer).shape == (1, 144, 96)


@pytest.mark.parametrize("pixel_format", ["rgb24", "nv12"])
@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_random_weights_survive_the_export(scale: int, dtype: torch.dtype, pixel_format: PixelFormat) -> None:
    network = trained(scale)
    model = to_onnx(deployed_graph(SPEC, network, dtype, pixel_format))
    parity = verify_onnx(model, reference_graph(SPEC, network, pixel_format))
    assert parity.max_difference <= 1
    assert len(parity.frames) == 5


@pytest.mark.parametrize("scale", [2, 3])
def test_half_precision_loses_no_quality(scale: int) -> None:
    with Image.open(ROOT / "samples" / "nuthatch_4k.jpg") as photograph:
        hr = np.asarray(photograph.crop((1200, 600, 1920, 1080)))
    lr = degrade(hr, scale)
    network = load(SPEC, scale, "clean")
    half = onnxruntime.InferenceSession(to_onnx(deployed_graph(SPEC, network, torch.float16)).SerializeToString())
    (answer,) = half.run(None, {"lr_frames": lr[None]})
    expected = upscale(network, lr, SPEC.input_range)
    assert psnr(np.asarray(answer)[0], hr) == pytest.approx(psnr(expected, hr), abs=0.01)


@pytest.mark.parametrize("pixel_format", ["rgb24", "nv12"])
def test_a_model_that_computes_something_else_is_refused(pixel_format: PixelFormat) -> None:
    network = trained()
    other = trained()
    with torch.no_grad():
        other.get_parameter("tail.bias").add_(0.02 * SPEC.input_range)
    with pytest.raises(ParityError, match=r"differs from PyTorch by \d+ grey levels \(allowed: 1\)"):
        verify_onnx(
            to_onnx(deployed_graph(SPEC, other, pixel_format=pixel_format)),
            reference_graph(SPEC, network, pixel_format),
        )


def test_a_failed_proof_leaves_the_repository_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ParityError("no")

    monkeypatch.setattr("export.exporter.verify_onnx", fail)
    with pytest.raises(ParityError):
        export_variant(SPEC, 2, "clean", repository=tmp_path, weights=WEIGHTS_DIR)
    assert list(tmp_path.iterdir()) == []


def write(repository: Path, version: int, model: bytes, max_batch: int = 8) -> Path:
    facts = {"model": "runet", "scale": "2", "profile": "clean"}
    config = triton_config("it", "onnx", "rgb24", parameters=facts, max_batch=max_batch, warm_up=(90, 160))
    return write_variant(repository, "it", config, "model.onnx", model, {"version": version}, version)


def test_a_version_is_written_beside_others_and_served_when_somebody_says_so(tmp_path: Path) -> None:
    folder = write(tmp_path, 1, b"first")
    assert served_versions((folder / "config.pbtxt").read_text()) == [], "the latest, which is Triton's own choice"
    for version, model in ((2, b"second"), (3, b"third"), (2, b"second again")):
        write(tmp_path, version, model)
        assert served_versions((folder / "config.pbtxt").read_text()) == [1]
    assert {path.parent.name: path.read_bytes() for path in folder.glob("*/model.onnx")} == {
        "1": b"first",
        "2": b"second again",
        "3": b"third",
    }
    assert json.loads((folder / "2" / "manifest.json").read_text()) == {"version": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["it"]
    serve_versions(folder, [3, 2])
    assert served_versions((folder / "config.pbtxt").read_text()) == [2, 3]
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3", "config.pbtxt"]
    with pytest.raises(RepositoryError, match=r"has no version 4; it has \[1, 2, 3\]"):
        serve_versions(folder, [3, 4])


def test_versions_of_two_kinds_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, 1, b"first")
    with pytest.raises(RepositoryError, match="version 2 of it would need another configuration than version 1"):
        write(tmp_path, 2, b"second", max_batch=1)
    assert [path.name for path in tmp_path.iterdir()] == ["it"]
    assert sorted(path.name for path in folder.iterdir()) == ["1", "config.pbtxt"]


def test_random_weights_are_exported_on_request_only_and_marked(tmp_path: Path) -> None:
    spec = get("qqcoin")
    nowhere, repository = tmp_path / "weights", tmp_path / "repository"
    with pytest.raises(WeightsError, match="no weights at"):
        export_variant(spec, 2, "clean", repository=repository, weights=nowhere)
    done = export_variant(spec, 2, "clean", repository=repository, weights=nowhere, allow_untrained=True)
    assert not done.trained
    manifest = json.loads((done.path / "1" / "manifest.json").read_text())
    assert (manifest["trained"], manifest["weights_sha256"]) == (False, None)
    config = text_format.Parse((done.path / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.parameters["trained"].string_value == "false"


def test_bicubic_needs_no_weights(tmp_path: Path) -> None:
    done = export_variant(get("bicubic"), 2, "compressed", repository=tmp_path, weights=tmp_path / "weights")
    assert done.trained
    assert done.parameters == 0


def test_kernels_mixed_for_each_frame_are_served_one_frame_at_a_time(tmp_path: Path) -> None:
    spec = get("asconvsr")
    done = export_variant(spec, 2, "clean", repository=tmp_path, weights=tmp_path, allow_untrained=True)
    config = text_format.Parse((done.path / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.max_batch_size == 1


def test_one_frame_at_a_time_goes_for_nv12_too(tmp_path: Path) -> None:
    spec = get("asconvsr")
    done = export_variant(
        spec, 2, "clean", pixel_format="nv12", repository=tmp_path, weights=tmp_path, allow_untrained=True
    )
    model = onnx.load(done.path / "1" / "model.onnx")
    assert [value.type.tensor_type.shape.dim[0].dim_value for value in model.graph.input] == [1, 1]


def test_a_model_that_the_engine_cannot_run_is_refused_in_one_line() -> None:
    model = to_onnx(deployed_graph(SPEC, trained()))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "blocksize":
                attribute.i = 5
    with pytest.raises(ParityError, match="ONNX Runtime fails") as caught:
        verify_onnx(model, reference_graph(SPEC, trained()))
    assert "\n" not in str(caught.value)


def test_an_exported_variant_replaces_the_old_one(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        write_variant(tmp_path, "v", "config", "model.onnx", content, {"a": 1})
    assert (tmp_path / "v" / "1" / "model.onnx").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_a_full_disk_leaves_the_old_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_variant(tmp_path, "v", "config", "model.onnx", b"old", {})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RepositoryError, match="No space left on device"):
        write_variant(tmp_path, "v", "config", "model.onnx", b"new", {})
    assert (tmp_path / "v" / "1" / "model.onnx").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_the_tensorrt_config_names_the_plan() -> None:
    text = triton_config("v", "tensorrt", "rgb24", parameters={}, max_batch=4, warm_up=(720, 1280))
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")


def test_tensorrt_without_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("PATH", "")
    shapes = FrameShapes((16, 16), (1080, 1920), (1080, 1920), 8)
    with pytest.raises(MissingToolError, match="needs the 'tensorrt' Python package or 'trtexec'"):
        to_engine(onnx.ModelProto(), "fp16", shapes)


def test_trtexec_is_the_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for trtexec: it checks nothing of TensorRT, only that we call it as documented and read its answer."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    program = tmp_path / "trtexec"
    program.write_text(
        '#!/bin/bash\nfor a in "$@"; do case $a in --saveEngine=*) printf "%s " "$@" > "${a#*=}";; esac; done\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    shapes = FrameShapes((16, 16), (1080, 1920), (1080, 1920), 8)
    engine, facts = to_engine(onnx.ModelProto(), "fp16", shapes)
    assert b"--maxShapes=lr_frames:8x1080x1920x3" in engine
    assert b"--stronglyTyped" in engine
    nv12, _ = to_engine(onnx.ModelProto(), "fp16", replace(shapes, pixel_format="nv12"))
    assert b"--minShapes=lr_frames:1x24x16,colours:1x2x3x4 " in nv12
    assert b"--maxShapes=lr_frames:8x1620x1920,colours:8x2x3x4 " in nv12
    assert facts["precision"] == "fp16"
    program.write_text('#!/bin/bash\necho "[E] no GPU"\nexit 1\n')
    with pytest.raises(Exception, match=r"trtexec failed: \[E\] no GPU"):
        to_engine(onnx.ModelProto(), "fp16", shapes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nope"], "export: unknown model 'nope'; known are: "),
        (
            ["--model", "runet", "--weights", "/nowhere"],
            "export: no weights at /nowhere/runet_x2_compressed.safetensors: train",
        ),
        (
            ["--model", "runet", "--repository", "/proc/nowhere"],
            "export: cannot create the model repository /proc/nowhere",
        ),
        (["--model", "runet", "--repository", "Makefile/x"], "export: cannot create the model repository Makefile/x"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], words: str, tmp_path: Path) -> None:
    if "--repository" not in arguments:
        arguments = [*arguments, "--repository", str(tmp_path)]
    done = export(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "profiles", "formats"),
    [
        (["--model", "runet"], {"clean", "compressed"}, {"rgb24", "nv12"}),
        (["--model", "runet", "--weights", "/nowhere"], {"compressed"}, {"rgb24", "nv12"}),
        (["--model", "bicubic", "--weights", "/nowhere"], {"clean", "compressed"}, {"rgb24", "nv12"}),
        (["--model", "runet", "--profile", "clean", "--pixel-format", "nv12"], {"clean"}, {"nv12"}),
        (
            ["--model", "runet", "--pixel-format=nv12", "--pixel-format=rgb24"],
            {"clean", "compressed"},
            {"rgb24", "nv12"},
        ),
        (["--model", "all"], {"compressed"}, {"rgb24"}),
        (["--model", "all", "--profile", "clean", "--pixel-format", "nv12"], {"clean"}, {"nv12"}),
    ],
)
def test_the_command_exports_these_profiles_and_pixel_formats(
    arguments: list[str], profiles: set[str], formats: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def note(spec: object, scale: int, profile: str, *, pixel_format: str, **_: object) -> Exported:
        asked.append((profile, pixel_format))
        return Exported(tmp_path, Parity(0, 0.0, ()), 0, trained=True)

    monkeypatch.setattr("export.cli.export_variant", note)
    done = CliRunner().invoke(app, [*arguments, "--scale", "all", "--repository", str(tmp_path)])
    assert done.exit_code == 0, done.output
    networks = sum(len(spec.scales) for spec in specs().values()) if "all" in arguments else 2
    assert set(asked) == {(profile, pixels) for profile in profiles for pixels in formats}
    assert len(asked) == networks * len(profiles) * len(formats)


def test_the_command_runs_from_anywhere_and_says_what_it_did(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "export"),
            "--model",
            "runet",
            "--scale",
            "2",
            "--repository",
            str(tmp_path / "new"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "66,764 parameters, onnx fp32, max difference to PyTorch" in done.stdout
    session = onnxruntime.InferenceSession(tmp_path / "new" / "runet_x2_clean" / "1" / "model.onnx")
    (answer,) = session.run(None, {"lr_frames": np.zeros((1, 33, 47, 3), np.uint8)})
    assert np.asarray(answer).shape == (1, 66, 94, 3)
    assert (tmp_path / "new" / "runet_x2_clean_nv12" / "1" / "model.onnx").is_file()
