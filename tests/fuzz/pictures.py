"""Pictures, by the way that the gateway takes them: their size by the header, refused or not, and their pixels."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from service import codec
from service.catalog import Catalog, Variant
from service.errors import FrameInvalidError
from service.frames import FrameStore
from tests.fuzz.fuzzed import Fuzzed
from upscale_client.v1 import upscale_pb2 as pb

_KINDS = {"PNG": pb.ENCODING_PNG, "JPEG": pb.ENCODING_JPEG, "WEBP": pb.ENCODING_WEBP}
_PNG_SIGNATURE = 8
_MOST_OUTPUT_PIXELS = 1 << 18
_MARK = 0x5A


class Pictures(Fuzzed):
    """Of one encoding.

    Args:
        kind: "PNG", "JPEG" or "WEBP".
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._catalog = Catalog("runet", "clean", _MOST_OUTPUT_PIXELS, ())
        self._catalog.update([Variant("runet_x2_clean", "runet", 2, "clean", 8, trained=True, instances=1)])
        self._frames = FrameStore(1, 1 << 24)

    def seeds(self) -> Sequence[bytes]:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
        smooth = Image.linear_gradient("L").resize((32, 16))
        exif = Image.Exif()
        exif[0x0112] = 6
        pictures = [
            noise,
            smooth,
            noise.convert("P"),
            smooth.convert("1"),
            noise.convert("RGBA"),
            noise.convert("CMYK"),
        ]
        options: dict[str, Sequence[dict[str, object]]] = {
            "PNG": ({}, {"optimize": True}, {"save_all": True, "append_images": [noise]}),
            "JPEG": (
                {},
                {"progressive": True},
                {"exif": exif, "quality": 30},
                {"subsampling": 2},
                {"restart_marker_blocks": 1},
            ),
            "WEBP": (
                {},
                {"lossless": True},
                {"exif": exif, "quality": 30},
                {"save_all": True, "append_images": [noise]},
            ),
        }
        return [
            self._file(picture, each) for picture in pictures for each in options[self._kind] if self._takes(picture)
        ]

    def one(self, data: bytes) -> None:
        frame = pb.Frame(encoding=_KINDS[self._kind])
        try:
            info = codec.inspect(frame, data, 16)
            scale = self._catalog.resolve("", 0, "", info.width, info.height, info.pixels).scale
        except FrameInvalidError:
            return
        with self._frames.take(info.layout(scale)) as slot:
            slot.source.view[:] = bytes((_MARK,)) * slot.source.size
            try:
                codec.decode(info, data, slot)
            except FrameInvalidError:
                assert slot.source.view[:64] == bytes((_MARK,)) * 64, "it was refused, and has left something"
        assert not self._frames.in_use

    def mend(self, data: bytes, chance: random.Random) -> bytes:
        if self._kind != "PNG" or chance.random() < 0.1:
            return data
        pack = chance.random() < 0.5
        return data[:_PNG_SIGNATURE] + b"".join(_mended(kind, content, pack) for kind, content in _chunks(data))

    def _takes(self, picture: Image.Image) -> bool:
        return picture.mode in {"PNG": "L1PRGBA", "JPEG": "L RGB CMYK", "WEBP": "RGBA"}[self._kind]

    def _file(self, picture: Image.Image, options: dict[str, object]) -> bytes:
        file = io.BytesIO()
        picture.save(file, self._kind, **options)
        return file.getvalue()


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A PNG's chunks, kind and content, as far as they are whole."""
    at = _PNG_SIGNATURE
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : end - 4]
        at = end


def _mended(kind: bytes, content: bytes, pack: bool) -> bytes:
    """A chunk whose checksum is right, and whose pixels can be unpacked as far as they could before."""
    if kind == b"IDAT" and pack:
        with contextlib.suppress(zlib.error):
            content = zlib.compress(zlib.decompressobj().decompress(content, _MOST_OUTPUT_PIXELS))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


PNG, JPEG, WEBP = map(Pictures, _KINDS)
