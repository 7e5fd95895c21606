"""The codec against honest, broken and hostile frames."""

from __future__ import annotations

import io
import resource
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service import codec
from service.errors import FrameInvalidError, RequestInvalidError
from service.frames import FrameFormat, FrameStore, Slot
from upscale_client.colour import Matrix, colour_maps
from upscale_client.v1 import upscale_pb2 as pb

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
KINDS = {"PNG": pb.ENCODING_PNG, "JPEG": pb.ENCODING_JPEG, "WEBP": pb.ENCODING_WEBP}


@pytest.fixture
def slot() -> Iterator[Slot]:
    store = FrameStore(1, 1 << 20)
    yield store.take(FrameFormat(height=24, width=32, scale=2))
    store.close()


def picture(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(file, kind, **options)
    return file.getvalue()


def frame(kind: str, data: bytes, width: int = 0, height: int = 0) -> pb.Frame:
    return pb.Frame(encoding=KINDS[kind], data=data, width=width, height=height)


def pixels(slot: Slot) -> NDArray[np.uint8]:
    return np.frombuffer(slot.source.view, np.uint8).reshape(24, 32, 3)


def data_of(frame: pb.Frame) -> bytes | None:
    return frame.data if frame.WhichOneof("payload") == "data" else None


def inspect(frame: pb.Frame) -> codec.FrameInfo:
    return codec.inspect(frame, data_of(frame), 16)


def decode(frame: pb.Frame, slot: Slot) -> None:
    codec.decode(inspect(frame), frame.data, slot)


def test_raw_pixels_arrive_as_sent(slot: Slot) -> None:
    decode(pb.Frame(width=32, height=24, encoding=pb.ENCODING_RGB24, data=PIXELS.tobytes()), slot)
    assert np.array_equal(pixels(slot), PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_pictures_arrive_as_sent(slot: Slot, kind: str) -> None:
    sent = frame(kind, picture(kind, lossless=True))
    assert (inspect(sent).width, inspect(sent).height) == (32, 24)
    decode(sent, slot)
    assert np.array_equal(pixels(slot), PIXELS)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA"])
def test_other_colour_modes_become_rgb(slot: Slot, mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    decode(frame("PNG", picture("PNG", image)), slot)
    assert np.array_equal(pixels(slot), np.asarray(image.convert("RGB")))


def test_a_turned_photograph_is_turned_upright(slot: Slot) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    data = picture("JPEG", Image.fromarray(PIXELS).rotate(90, expand=True), exif=exif, quality=95)
    sent = frame("JPEG", data)
    assert (inspect(sent).width, inspect(sent).height) == (32, 24)
    decode(sent, slot)


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
        inspect(wrong)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_picture_that_is_cut_off_is_refused(slot: Slot, kind: str, share: float) -> None:
    data = picture(kind)
    with pytest.raises(FrameInvalidError, match=f"not a (whole )?{kind} picture"):
        decode(frame(kind, data[: int(len(data) * share)]), slot)


def test_a_bomb_is_measured_by_its_header(slot: Slot) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    info = inspect(frame("PNG", bomb))
    assert (info.width, info.height) == (60_000, 60_000)  # what the catalogue refuses, before anything is decoded


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


PNG, JPEG, WEBP = (picture(kind) for kind in KINDS)
MEGABYTES = 24_000_000
PIXELS_AT = PNG.index(b"IDAT") - 4
SCAN_AT = JPEG.index(b"\xff\xda")
SCAN = segment(0xDA, bytes.fromhex("0301000211031100 00 10"))
PROGRESSIVE = picture("JPEG", Image.new("RGB", (1920, 1080)), progressive=True)
EXIF = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 5000) + struct.pack(">HHII", 700, 7, 1 << 20, 8) * 5000
WEBP_EXIF = EXIF[6:14] + struct.pack(">H", 65535) + struct.pack(">HHII", 700, 7, 1 << 20, 8) * 65535


def within_png(data: bytes) -> bytes:
    return PNG[:PIXELS_AT] + data + PNG[PIXELS_AT:]


def within_jpeg(data: bytes) -> bytes:
    return JPEG[:2] + data + JPEG[2:]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        pytest.param("PNG", lambda: within_png(chunk(b"tEXt", b"a\0") * (MEGABYTES // 14)), id="texts"),
        pytest.param("PNG", lambda: within_png(chunk(b"abCd") * (MEGABYTES // 12)), id="unknown chunks"),
        pytest.param("PNG", lambda: within_png(chunk(b"IDAT") * (MEGABYTES // 12)), id="chunks without pixels"),
        pytest.param("PNG", lambda: PNG + PNG[8:] * (MEGABYTES // len(PNG)), id="pictures after the picture"),
        pytest.param(
            "PNG",
            lambda: within_png(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 20_000),
            id="packed profiles",
        ),
        pytest.param("JPEG", lambda: within_jpeg(segment(0xFE) * (MEGABYTES // 4)), id="comments"),
        pytest.param("JPEG", lambda: within_jpeg(b"\xff" * MEGABYTES), id="fill bytes"),
        pytest.param("JPEG", lambda: within_jpeg(bytes(MEGABYTES)), id="junk"),
        pytest.param("JPEG", lambda: within_jpeg(segment(0xDB, bytes(65 * 1000)) * 350), id="tables"),
        pytest.param("JPEG", lambda: within_jpeg(segment(0xE1, EXIF) * 350), id="notes of cameras"),
        pytest.param("JPEG", lambda: PROGRESSIVE[:-2] + SCAN * 100_000 + PROGRESSIVE[-2:], id="scans"),
        pytest.param(
            "WEBP",
            lambda: WEBP[:4] + struct.pack("<I", len(WEBP) + MEGABYTES - 8) + WEBP[8:] + b"abcd\0\0\0\0" * 3_000_000,
            id="unknown parts",
        ),
        pytest.param("WEBP", lambda: picture("WEBP", exif=WEBP_EXIF), id="a camera's notes in a WebP"),
    ],
)
def test_no_picture_keeps_the_decoder_busy(
    kind: str, data: Callable[[], bytes], recwarn: pytest.WarningsRecorder
) -> None:
    """The header is read by the event loop, where everybody waits meanwhile."""
    sent = pb.Frame(encoding=KINDS[kind], width=0, height=0)
    hostile = data()
    began = time.thread_time()
    store = FrameStore(1, 1 << 26)
    try:
        info = codec.inspect(sent, hostile, 16)
        assert time.thread_time() - began < 0.5
        codec.decode(info, hostile, store.take(info.layout(2)))
    except FrameInvalidError:
        pass
    assert time.thread_time() - began < 2
    assert not recwarn, "what the client wrote went into our log, and each wording is kept for ever"
    store.close()


def test_a_picture_that_says_two_sizes_takes_no_memory_for_the_second(slot: Slot) -> None:
    def most_kilobytes() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    header = struct.pack(">IIBBBBB", 16_000, 16_000, 8, 2, 0, 0, 0)
    data = within_png(chunk(b"IHDR", header))
    before = most_kilobytes()
    decode(frame("PNG", data), slot)
    assert np.array_equal(pixels(slot), PIXELS), "the first one counts"
    with pytest.raises(FrameInvalidError, match="another size than its header says"):
        codec.decode(inspect(frame("PNG", PNG)), PNG[:8] + chunk(b"IHDR", header) + PNG[33:], slot)
    assert most_kilobytes() - before < 200_000


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_way_of_holding_a_camera_is_undone(turn: int, kind: str, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "a maker"
    exif[0x0112] = turn
    data = picture(kind, exif=exif.tobytes(), quality=95)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    info = inspect(frame(kind, data))
    assert (info.width, info.height) == expected.size
    store = FrameStore(1, 1 << 20)
    with store.take(info.layout(2)) as slot:
        codec.decode(info, data, slot)
        assert bytes(slot.source.view) == expected.tobytes()
    store.close()


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_damage_gets_past_the_decoder_as_another_error(slot: Slot, kind: str) -> None:
    rng = np.random.default_rng(1)
    whole = np.frombuffer(picture(kind), np.uint8)
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(0, len(damaged), 5)] = rng.integers(0, 256, 5)
        try:
            sent = frame(kind, damaged.tobytes())
            info = inspect(sent)
            if (info.width, info.height) == (32, 24):
                decode(sent, slot)
        except FrameInvalidError:
            pass


@pytest.mark.parametrize("kind", list(KINDS))
def test_answers_are_pictures_of_the_slots_output(slot: Slot, kind: str) -> None:
    slot.answer.view[:] = bytes(range(256)) * (len(slot.answer.view) // 256)
    output = pb.OutputFormat(encoding=KINDS[kind], quality=0 if kind == "PNG" else 100)
    data = codec.encode(slot, codec.output_format(output, KINDS[kind]))
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == (kind, (64, 48))
    if kind != "JPEG":
        assert image.convert("RGB").tobytes() == bytes(slot.answer.view)


def test_output_formats_have_defaults_and_limits() -> None:
    def output(frame: pb.Encoding = pb.ENCODING_RGB24, **wanted: Any) -> codec.Output:
        return codec.output_format(pb.OutputFormat(**wanted), frame)

    assert output() == output(pb.ENCODING_PNG) == codec.Output(pb.ENCODING_RGB24, 0)
    assert output(encoding=pb.ENCODING_JPEG).quality == 90
    with pytest.raises(RequestInvalidError, match=r"output.quality is 101; accepted are 1 to 100"):
        output(encoding=pb.ENCODING_WEBP, quality=101)
    with pytest.raises(RequestInvalidError, match=r"output.quality is 5; ENCODING_PNG has none"):
        output(encoding=pb.ENCODING_PNG, quality=5)
    with pytest.raises(RequestInvalidError, match=r"output.encoding is 9 \(unknown\)"):
        output(encoding=9)


def test_yuv_answers_yuv_and_nothing_else_does() -> None:
    assert codec.output_format(pb.OutputFormat(), pb.ENCODING_I420).encoding == pb.ENCODING_I420
    nv12 = pb.OutputFormat(encoding=pb.ENCODING_NV12)
    assert codec.output_format(nv12, pb.ENCODING_I420).encoding == pb.ENCODING_NV12
    with pytest.raises(
        RequestInvalidError, match="accepted for a frame in ENCODING_RGB24 are: ENCODING_RGB24, ENCODING_P"
    ):
        codec.output_format(nv12, pb.ENCODING_RGB24)
    with pytest.raises(
        RequestInvalidError, match="accepted for a frame in ENCODING_NV12 are: ENCODING_NV12, ENCODING_I"
    ):
        codec.output_format(pb.OutputFormat(encoding=pb.ENCODING_RGB24), pb.ENCODING_NV12)


YUV = np.random.default_rng(1).integers(0, 256, 24 * 32 * 3 // 2, dtype=np.uint8).tobytes()


def yuv(encoding: pb.Encoding, **more: Any) -> pb.Frame:
    fields: dict[str, Any] = {"width": 32, "height": 24, "encoding": encoding, "data": YUV}
    return pb.Frame(**fields | more)


def wrong_colour(**fields: Any) -> pb.Colour:
    return pb.Colour(**fields)


@pytest.fixture
def yuv_slot() -> Iterator[Slot]:
    store = FrameStore(1, 1 << 20)
    yield store.take(FrameFormat(24, 32, 2, "nv12"))
    store.close()


def test_i420_and_nv12_are_the_same_frame(yuv_slot: Slot) -> None:
    decode(yuv(pb.ENCODING_NV12), yuv_slot)
    assert bytes(yuv_slot.source.view) == YUV
    planes = np.frombuffer(YUV[24 * 32 :], np.uint8).reshape(-1, 2).T
    decode(yuv(pb.ENCODING_I420, data=YUV[: 24 * 32] + planes.tobytes()), yuv_slot)
    assert bytes(yuv_slot.source.view) == YUV


def test_an_i420_answer_has_its_planes_apart(yuv_slot: Slot) -> None:
    luma = 48 * 64
    yuv_slot.answer.view[:] = bytes([1]) * luma + bytes([2, 3]) * (luma // 4)
    planes = bytes(codec.encode(yuv_slot, codec.Output(pb.ENCODING_I420, 0)))
    assert planes == bytes([1]) * luma + bytes([2]) * (luma // 4) + bytes([3]) * (luma // 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (yuv(pb.ENCODING_NV12, width=33), "frame.width is 33; it must be even for ENCODING_NV12"),
        (yuv(pb.ENCODING_I420, height=23), "frame.height is 23; it must be even for ENCODING_I420"),
        (yuv(pb.ENCODING_NV12, data=b"1"), r"has 1 bytes; 32x24 as NV12 has 1152 \(width \* height \* 3 / 2\)"),
        (
            yuv(pb.ENCODING_NV12, colour=wrong_colour(matrix=7)),
            r"frame.colour.matrix is 7 \(unknown\); accepted are: COLOUR_",
        ),
        (yuv(pb.ENCODING_NV12, colour=wrong_colour(range=5)), r"frame.colour.range is 5 \(unknown\)"),
        (
            pb.Frame(width=32, height=24, encoding=pb.ENCODING_RGB24, data=bytes(2304), colour=pb.Colour()),
            "frame.colour is for ENCODING_NV12, ENCODING_I420; ENCODING_RGB24 has none",
        ),
        (pb.Frame(encoding=pb.ENCODING_PNG, region=pb.RegionRef()), "ENCODING_PNG cannot lie in a region"),
    ],
)
def test_what_is_wrong_with_yuv_is_named(wrong: pb.Frame, message: str) -> None:
    with pytest.raises(FrameInvalidError, match=message):
        inspect(wrong)


@pytest.mark.parametrize(
    ("colour", "matrix", "full"),
    [
        (None, "bt709", False),
        (pb.Colour(matrix=pb.COLOUR_MATRIX_BT601), "bt601", False),
        (pb.Colour(range=pb.COLOUR_RANGE_FULL), "bt709", True),
    ],
)
def test_a_frame_comes_with_the_maps_of_its_colours(colour: pb.Colour | None, matrix: Matrix, full: bool) -> None:
    frame = pb.Frame(encoding=pb.ENCODING_NV12, width=32, height=24, colour=colour)
    maps = codec.inspect(frame, bytes(32 * 24 * 3 // 2), 16).colours
    assert maps is not None
    assert np.array_equal(maps, colour_maps(matrix, full))
