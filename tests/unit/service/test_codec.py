"""The codec against honest, broken and hostile frames."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service import codec
from service.errors import FrameInvalidError, RequestInvalidError
from service.frames import FrameSize, FrameStore, Slot
from upscale_client.v1 import upscale_pb2 as pb

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
KINDS = {"PNG": pb.ENCODING_PNG, "JPEG": pb.ENCODING_JPEG, "WEBP": pb.ENCODING_WEBP}


@pytest.fixture
def slot() -> Iterator[Slot]:
    store = FrameStore(1, 1 << 20)
    yield store.take(FrameSize(height=24, width=32, scale=2))
    store.close()


def picture(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(file, kind, **options)
    return file.getvalue()


def frame(kind: str, data: bytes, width: int = 0, height: int = 0) -> pb.Frame:
    return pb.Frame(encoding=KINDS[kind], data=data, width=width, height=height)


def pixels(slot: Slot) -> NDArray[np.uint8]:
    return np.frombuffer(slot.input, np.uint8).reshape(24, 32, 3)


def test_raw_pixels_arrive_as_sent(slot: Slot) -> None:
    info = codec.inspect(pb.Frame(width=32, height=24, encoding=pb.ENCODING_RGB24, data=PIXELS.tobytes()), 16)
    codec.decode(info, slot)
    assert np.array_equal(pixels(slot), PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_pictures_arrive_as_sent(slot: Slot, kind: str) -> None:
    info = codec.inspect(frame(kind, picture(kind, lossless=True)), 16)
    assert (info.width, info.height) == (32, 24)
    codec.decode(info, slot)
    assert np.array_equal(pixels(slot), PIXELS)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA"])
def test_other_colour_modes_become_rgb(slot: Slot, mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    codec.decode(codec.inspect(frame("PNG", picture("PNG", image)), 16), slot)
    assert np.array_equal(pixels(slot), np.asarray(image.convert("RGB")))


def test_a_turned_photograph_is_turned_upright(slot: Slot) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    data = picture("JPEG", Image.fromarray(PIXELS).rotate(90, expand=True), exif=exif, quality=95)
    info = codec.inspect(frame("JPEG", data), 16)
    assert (info.width, info.height) == (32, 24)
    codec.decode(info, slot)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pb.Frame(width=32, height=24, encoding=pb.ENCODING_RGB24), "frame.data is missing"),
        (
            pb.Frame(width=32, height=24, encoding=pb.ENCODING_RGB24, data=b"12"),
            r"frame.data has 2 bytes; 32x24 as RGB24 has 2304 \(3 \* width \* height\)",
        ),
        (pb.Frame(width=32, height=2, encoding=pb.ENCODING_RGB24, data=b""), "frame.height is 2; the least is 16"),
        (pb.Frame(encoding=pb.ENCODING_RGB24, data=b""), "frame.width is 0; the least is 16"),
        (
            pb.Frame(width=32, height=24, data=b"12"),
            "frame.encoding is ENCODING_UNSPECIFIED; accepted are: ENCODING_RGB24",
        ),
        (pb.Frame(width=32, height=24, encoding=77, data=b"12"), r"frame.encoding is 77 \(unknown\)"),  # pyright: ignore[reportArgumentType]
        (frame("PNG", b"not a picture"), "frame.data is not a PNG picture: its header cannot be read"),
        (frame("PNG", b""), "frame.data is not a PNG picture"),
        (frame("PNG", picture("JPEG")), "frame.data is not a PNG picture"),
        (frame("PNG", picture("PNG"), width=33), "frame.width is 33, but the picture's width is 32"),
        (frame("PNG", picture("PNG"), height=25), "frame.height is 25, but the picture's height is 24"),
        (frame("PNG", picture("PNG", Image.new("RGB", (15, 99)))), "frame.width is 15; the least is 16"),
        (frame("PNG", picture("PNG", Image.new("I;16", (32, 24)))), "more than 8 bits"),
    ],
)
def test_what_is_wrong_is_named(wrong: pb.Frame, message: str) -> None:
    with pytest.raises(FrameInvalidError, match=message):
        codec.inspect(wrong, 16)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_picture_that_is_cut_off_is_refused(slot: Slot, kind: str, share: float) -> None:
    data = picture(kind)
    with pytest.raises(FrameInvalidError, match=f"not a (whole )?{kind} picture"):
        codec.decode(codec.inspect(frame(kind, data[: int(len(data) * share)]), 16), slot)


def test_a_bomb_is_measured_by_its_header(slot: Slot) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    info = codec.inspect(frame("PNG", bomb), 16)
    assert (info.width, info.height) == (60_000, 60_000)  # what the catalogue refuses, before anything is decoded


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_damage_gets_past_the_decoder_as_another_error(slot: Slot, kind: str) -> None:
    rng = np.random.default_rng(1)
    whole = np.frombuffer(picture(kind), np.uint8)
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(0, len(damaged), 5)] = rng.integers(0, 256, 5)
        try:
            info = codec.inspect(frame(kind, damaged.tobytes()), 16)
            if (info.width, info.height) == (32, 24):
                codec.decode(info, slot)
        except FrameInvalidError:
            pass


@pytest.mark.parametrize("kind", list(KINDS))
def test_answers_are_pictures_of_the_slots_output(slot: Slot, kind: str) -> None:
    slot.output[:] = bytes(range(256)) * (len(slot.output) // 256)
    data = codec.encode(
        slot, codec.output_format(pb.OutputFormat(encoding=KINDS[kind], quality=0 if kind == "PNG" else 100))
    )
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == (kind, (64, 48))
    if kind != "JPEG":
        assert image.convert("RGB").tobytes() == bytes(slot.output)


def test_output_formats_have_defaults_and_limits() -> None:
    assert codec.output_format(pb.OutputFormat()) == codec.Output(pb.ENCODING_RGB24, 0)
    assert codec.output_format(pb.OutputFormat(encoding=pb.ENCODING_JPEG)).quality == 90
    with pytest.raises(RequestInvalidError, match=r"output.quality is 101; accepted are 1 to 100"):
        codec.output_format(pb.OutputFormat(encoding=pb.ENCODING_WEBP, quality=101))
    with pytest.raises(RequestInvalidError, match=r"output.quality is 5; ENCODING_PNG has none"):
        codec.output_format(pb.OutputFormat(encoding=pb.ENCODING_PNG, quality=5))
    with pytest.raises(RequestInvalidError, match=r"output.encoding is 9 \(unknown\)"):
        codec.output_format(pb.OutputFormat(encoding=9))  # pyright: ignore[reportArgumentType]
