"""What a decoder is given of a picture's file: what the pixels need, and nothing that could keep it busy for long.

Pillow spends microseconds on every part of a file, and unpacks texts and colour profiles that nobody asked for: with 25
MB of them it is busy for a minute. So the parts are walked here first; the few that matter are kept, and too many are
refused.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from upscale_client.wire import Buffer

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_BYTES = 33
_PNG_PIXELS_BEGIN = b"\0\0\0\0IDAT"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_MOST_CHUNKS = 16_384
"""Of a PNG. 25 MB in the usual pieces of 8 KB are three thousand."""
_JPEG = b"\xff\xd8"
_FILL, _END, _SCAN, _APP1 = 0xFF, 0xD9, 0xDA, 0xE1
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""
_JPEG_KEPT = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDD, _SCAN, 0xE0, 0xEE})
"""Size, tables and scan; and the two that say which colours they are, of JFIF and of Adobe."""
_MOST_SEGMENTS = 1024
"""Before a JPEG's first scan, fill bytes included. A colour profile may be 255, and photographs bring a few dozen."""
_MOST_TABLE_BYTES = 1 << 16
_MOST_SCANS = 100
"""Every one goes over the whole picture, however few bytes it has. Progressive pictures have about ten."""
_EXIF = b"Exif\0\0"
_ORIENTATION, _SHORT = 0x0112, 3
_MOST_TAGS = 1024


class Plain(NamedTuple):
    """A picture for a decoder."""

    file: Buffer
    exif: bytes
    """What a JPEG's camera noted. A WebP's is for its decoder to find."""


def header(data: Buffer, kind: str) -> Plain:
    """As much of a file as tells its size.

    Args:
        data: the file.
        kind: "PNG", "JPEG" or "WEBP".

    Raises:
        ValueError: it cannot be read, or its header has too many parts.
    """
    view = memoryview(data)
    if kind == "PNG":
        if bytes(view[:8]) != _PNG or bytes(view[12:16]) != b"IHDR":
            raise ValueError("its header cannot be read")
        return Plain(bytes(view[:_PNG_HEADER_BYTES]) + _PNG_PIXELS_BEGIN, b"")
    if kind == "JPEG":
        head, exif, _ = _jpeg_header(view)
        return Plain(head, exif)
    return Plain(data, b"")


def plain(data: Buffer, kind: str) -> Plain:
    """A file without what its pixels do not need.

    Args:
        data: the file.
        kind: "PNG", "JPEG" or "WEBP".

    Raises:
        ValueError: it cannot be read, or has too many parts.
    """
    view = memoryview(data)
    if kind == "PNG":
        return Plain(_png_pixels(view), b"")
    if kind == "JPEG":
        head, exif, position = _jpeg_header(view)
        file = b"".join((head, view[position:]))
        if file.count(bytes((0xFF, _SCAN))) > _MOST_SCANS:
            raise ValueError(f"it has more than {_MOST_SCANS} scans")
        return Plain(file, exif)
    return Plain(data, b"")


def orientation(exif: bytes) -> int:
    """How a camera was held, 1 to 8 as EXIF has it; 1, upright, where that cannot be told."""
    tiff = exif.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (place,) = struct.unpack_from(f"{order}I", tiff, 4)
    if place + 2 > len(tiff):
        return 1
    (tags,) = struct.unpack_from(f"{order}H", tiff, place)
    for entry in range(place + 2, min(place + 2 + 12 * min(tags, _MOST_TAGS), len(tiff) - 11), 12):
        tag, form, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == _ORIENTATION:
            return value if form == _SHORT and 1 <= value <= 8 else 1
    return 1


def _png_pixels(view: memoryview) -> bytes:
    kept = [view[: len(_PNG)]]
    position = len(_PNG)
    for _ in range(_MOST_CHUNKS):
        kind = bytes(view[position + 4 : position + 8])
        end = position + 12 + int.from_bytes(view[position : position + 4], "big")
        if kind in _PNG_KEPT and (kind != b"IHDR" or len(kept) == 1):  # the first is its header
            kept.append(view[position:end])  # shorter where the file is: the decoder will say so
        if end >= len(view) or kind == b"IEND":
            return b"".join(kept)
        position = end
    raise ValueError(f"it has more than {_MOST_CHUNKS} chunks")


def _jpeg_header(view: memoryview) -> tuple[bytes, bytes, int]:
    """What is kept of the segments up to the first scan, the EXIF block, and where the scan's bytes begin."""
    if bytes(view[:2]) != _JPEG:
        raise ValueError("its header cannot be read")
    kept = [view[:2]]
    exif = b""
    position = 2
    for _ in range(_MOST_SEGMENTS):
        lead = bytes(view[position : position + 4])
        if len(lead) < 4 or lead[0] != _FILL or lead[1] in (0, _END):
            raise ValueError("its header is broken off")
        if lead[1] == _FILL:
            position += 1
            continue
        if lead[1] in _ALONE:
            position += 2
            continue
        start, end = position + 4, position + 2 + int.from_bytes(lead[2:], "big")
        if not start <= end <= len(view):
            raise ValueError("its header is broken off")
        if lead[1] in _JPEG_KEPT:
            kept.append(view[position:end])
        elif lead[1] == _APP1 and not exif and bytes(view[start : start + len(_EXIF)]) == _EXIF:
            exif = bytes(view[start:end])
        if lead[1] == _SCAN:
            break
        position = end
    else:
        raise ValueError(f"it has more than {_MOST_SEGMENTS} segments before its pixels")
    if sum(map(len, kept)) > _MOST_TABLE_BYTES:
        raise ValueError("its tables are too large")
    return b"".join(kept), exif, end
