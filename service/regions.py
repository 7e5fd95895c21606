"""Clients' own shared memory: a client on this host puts frames where Triton reads them, and finds the answers there.

What a client says of its region is checked, not believed:

- its name can mean nothing but a client's region: one pattern, no path, no link (O_NOFOLLOW, one hard link);
- the file belongs to this service's own user and is closed to all others, so whoever can cut it short, or write to it
  behind our back, could end this process anyway;
- its first bytes are what the client says they are: who cannot write there does not own it;
- no two clients share one, and its handle is a secret, so nobody reaches another's frames.

A region is there as long as the call that shares it: when a client dies, its connection does, and the call.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat

from service.errors import OverloadedError, RegionInvalidError
from service.frames import SHARED_MEMORY, FrameFormat, FrameStore, Region, Slot, Span

_NAME = re.compile(r"upscale-client-[0-9a-f]{32}")
_PROOF_BYTES = 32
_TRITON_PREFIX = "upscale-client-"


class ClientRegion(Region):
    """A region that a client shares."""

    def __init__(self, descriptor: int, file: str, byte_size: int) -> None:
        self.handle = secrets.token_hex(16)
        self.users = 0
        """Frames that use it now."""
        self.closed = False
        super().__init__(descriptor, file, f"{_TRITON_PREFIX}{secrets.token_hex(8)}", byte_size)

    def check(self) -> None:
        """Refuse a file that was cut short: touching what is not there ends the process.

        Raises:
            RegionInvalidError: it was.
        """
        size = os.fstat(self.descriptor).st_size
        if size < self.byte_size:
            raise RegionInvalidError(f"the region has {size} bytes now; it was shared with {self.byte_size}")


class Regions:
    """All clients' regions.

    Args:
        frames: learns which of them every Triton is to forget.
        most: regions at once.
    """

    def __init__(self, frames: FrameStore, most: int) -> None:
        self._frames = frames
        self._most = most
        self._by_handle: dict[str, ClientRegion] = {}

    def __len__(self) -> int:
        return len(self._by_handle)

    def share(self, name: str, byte_size: int, proof: bytes) -> ClientRegion:
        """Open a client's region.

        Raises:
            RegionInvalidError: there is no such file, or it is not the client's, or not what it says.
            OverloadedError: there are too many already.
        """
        if not _NAME.fullmatch(name):
            raise RegionInvalidError(f"name is {name!r}; accepted is 'upscale-client-' and 32 hexadecimal digits")
        if len(proof) != _PROOF_BYTES:
            raise RegionInvalidError(f"proof has {len(proof)} bytes; it must have {_PROOF_BYTES}")
        if len(self) >= self._most:
            raise OverloadedError(f"{self._most} regions are shared already, the most allowed; try again later")
        if any(region.file == name for region in self._by_handle.values()):
            raise RegionInvalidError(f"{name} is shared already")
        try:
            descriptor = os.open(SHARED_MEMORY / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise RegionInvalidError(
                f"{name} cannot be opened in {SHARED_MEMORY} ({error.strerror}): is the client on the service's host, "
                "and its user the service's?"
            ) from None
        try:
            _check_owner(name, os.fstat(descriptor), byte_size)
            if not hmac.compare_digest(os.pread(descriptor, _PROOF_BYTES, 0), proof):
                raise RegionInvalidError(f"{name} does not begin with the proof: it belongs to somebody else")
            region = ClientRegion(descriptor, name, byte_size)
        except BaseException:
            os.close(descriptor)
            raise
        self._by_handle[region.handle] = region
        return region

    def unshare(self, region: ClientRegion) -> None:
        """Forget a region and remove its file, which a client that died leaves behind.

        Its memory is kept until the last frame in it is done.
        """
        del self._by_handle[region.handle]
        if region.is_at_its_name():
            (SHARED_MEMORY / region.file).unlink(missing_ok=True)
        region.closed = True
        self._remove_unused(region)

    def span(self, field: str, handle: str, offset: int, size: int) -> Span:
        """A piece of a client's region; `field` names it in messages.

        Raises:
            RegionInvalidError: no such region, or the piece is not inside it.
        """
        region = self._by_handle.get(handle)
        if region is None:
            raise RegionInvalidError(f"{field}.handle is not one that this service has given out")
        if region.retired:
            raise RegionInvalidError(
                f"{field}: Triton gave no answer on this region and may still write; share another"
            )
        if offset + size > region.byte_size:
            raise RegionInvalidError(
                f"{field}.offset is {offset}: {size} bytes from there end behind the region's {region.byte_size}"
            )
        return Span(region, offset, size)

    def borrow(self, layout: FrameFormat, source: Span, answer: Span, *, reserved: bool = False) -> Slot:
        """A slot in clients' regions, in a place that the caller has reserved or in a free one; the caller holds it.

        Raises:
            OverloadedError: all frames' places are taken.
            RegionInvalidError: the answer would be written over the frame.
        """
        if (
            source.region is answer.region
            and source.offset < answer.offset + answer.size
            and answer.offset < source.offset + source.size
        ):
            raise RegionInvalidError("answer.offset: the answer would be written over the frame")
        users = [span.region for span in (source, answer) if isinstance(span.region, ClientRegion)]

        def done() -> None:
            for region in users:
                region.users -= 1
                self._remove_unused(region)

        slot = self._frames.borrow(layout, source, answer, done, reserved=reserved)
        for region in users:
            region.users += 1
        return slot

    def close(self) -> None:
        """Forget all regions."""
        for region in list(self._by_handle.values()):
            self.unshare(region)

    def _remove_unused(self, region: ClientRegion) -> None:
        if region.closed and not region.users:
            region.unmap()
            self._frames.tell_removed(region.name)


def _check_owner(name: str, found: os.stat_result, byte_size: int) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise RegionInvalidError(f"{name} is not a plain file with one name")
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise RegionInvalidError(f"{name} must belong to the service's own user and have mode 0600")
    if not _PROOF_BYTES <= byte_size == found.st_size:
        raise RegionInvalidError(f"byte_size is {byte_size}, but the file has {found.st_size} bytes")
