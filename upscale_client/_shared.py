"""Frames in shared memory: on the service's own host no pixel goes through the connection."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from pathlib import Path

import numpy as np

from upscale_client import _messages
from upscale_client._messages import PixelFormat, Wish
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


class SharedRequests:
    """Requests for the frames of a region that is shared under `handle`."""

    def __init__(
        self,
        region: SharedRegion,
        handle: str,
        wish: Wish,
        head: pb.Frame,
    ) -> None:
        self._region = region
        self._handle = handle
        self._wish = wish
        self._head = head

    def of(self, index: int) -> Framed[pb.UpscaleRequest]:
        """The message that asks for the frame at `index`."""
        frame = pb.Frame()
        frame.CopyFrom(self._head)
        frame.region.handle, frame.region.offset = self._handle, index * self._region.frame_bytes
        message = pb.UpscaleRequest(
            model=self._wish.model,
            scale=self._wish.scale,
            profile=self._wish.profile_value(),
            output=self._wish.output_format(),
            frame=frame,
            answer=pb.RegionRef(
                handle=self._handle,
                offset=self._region.answers_begin + index * self._region.answer_bytes,
            ),
        )
        _messages.set_budget(message, self._wish)
        return Framed(message)
