"""Frames in shared memory: on the service's own host no pixel goes through the connection."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from upscale_client import _messages
from upscale_client._messages import Colour, PixelFormat, Wish
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import Framed

_SHARED_MEMORY = Path("/dev/shm")
_PROOF_BYTES = 32
_PAGE = 4096


class SharedRegion:
    """A piece of shared memory with places for some frames and their answers.

    The frames lie side by side and so do the answers, so the service can infer several as one batch.

    Args:
        width, height: of the frames.
        scale: 2 or 3.
        pixel_format: of frames and answers.
        count: places.
    """

    def __init__(self, width: int, height: int, scale: int, pixel_format: PixelFormat, count: int) -> None:
        self.width, self.height = width, height
        self.pixel_format: PixelFormat = pixel_format
        shapes = [_messages.raw_shape(width * each, height * each, pixel_format) for each in (1, scale)]
        frame_bytes, answer_bytes = (int(np.prod(shape)) for shape in shapes)
        self.answers_begin = -(-count * frame_bytes // _PAGE) * _PAGE
        self.byte_size = self.answers_begin + count * answer_bytes
        self.frame_bytes, self.answer_bytes = frame_bytes, answer_bytes
        self.name = f"upscale-client-{secrets.token_hex(16)}"
        descriptor = os.open(_SHARED_MEMORY / self.name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self.byte_size)
            self._map = mmap.mmap(descriptor, self.byte_size)
        except OSError:
            self._unlink()
            raise
        finally:
            os.close(descriptor)
        self.proof = secrets.token_bytes(_PROOF_BYTES)
        self._map[:_PROOF_BYTES] = self.proof
        pixels = np.frombuffer(self._map, np.uint8)
        self.inputs = [pixels[index * frame_bytes :][:frame_bytes].reshape(shapes[0]) for index in range(count)]
        self.outputs = [
            pixels[self.answers_begin + index * answer_bytes :][:answer_bytes].reshape(shapes[1])
            for index in range(count)
        ]

    def request(self) -> pb.ShareRegionRequest:
        """What asks the service to share it."""
        return pb.ShareRegionRequest(name=self.name, byte_size=self.byte_size, proof=self.proof)

    def close(self) -> None:
        """Remove it; arrays that are still in use keep the memory until they are gone."""
        self._unlink()
        self.inputs, self.outputs = [], []
        with contextlib.suppress(BufferError):
            self._map.close()

    def _unlink(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (_SHARED_MEMORY / self.name).unlink()


class SharedPlaces:
    """A region that is shared under `handle`, as places to put frames and find answers.

    Args:
        region: closed with this.
        handle: what the service calls it.
        wish: what is wanted of every frame.
        colour: of every frame, if they are NV12 or I420.
    """

    def __init__(self, region: SharedRegion, handle: str, wish: Wish, colour: Colour) -> None:
        self._region = region
        self._handle = handle
        self._wish = wish
        self._colour = colour

    @property
    def inputs(self) -> list[NDArray[np.uint8]]:
        """The frames: put yours into one of these arrays."""
        return self._region.inputs

    @property
    def outputs(self) -> list[NDArray[np.uint8]]:
        """The answers; one is good until its frame is enlarged again."""
        return self._region.outputs

    def _request(self, index: int) -> Framed[pb.UpscaleRequest]:
        """The message that asks for the frame at `index`."""
        region = self._region
        frame = _messages.raw_head(region.width, region.height, region.pixel_format, self._colour)
        frame.region.handle, frame.region.offset = self._handle, index * region.frame_bytes
        message = pb.UpscaleRequest(
            frame=frame,
            answer=pb.RegionRef(handle=self._handle, offset=region.answers_begin + index * region.answer_bytes),
        )
        self._wish.put(message)
        return Framed(message)
