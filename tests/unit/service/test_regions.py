"""Clients' regions: what is checked before a byte of them is touched."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import OverloadedError, RegionInvalidError
from service.frames import SHARED_MEMORY, FrameFormat, FrameStore
from service.regions import ClientRegion, Regions

SIZE = 4096
SMALL = FrameFormat(16, 16, 2)  # 768 bytes, and 3,072 for the answer


class File:
    """A client's file."""

    def __init__(self, mode: int = 0o600) -> None:
        self.name = f"upscale-client-{secrets.token_hex(16)}"
        self.proof = secrets.token_bytes(32)
        self.path = SHARED_MEMORY / self.name
        self.path.touch(0o600)
        self.path.write_bytes(self.proof + bytes(SIZE - 32))
        self.path.chmod(mode)


@pytest.fixture
def files() -> Iterator[list[File]]:
    made = [File() for _ in range(3)]
    yield made
    for file in made:
        file.path.unlink(missing_ok=True)


@pytest.fixture
def file(files: list[File]) -> File:
    return files[0]


@pytest.fixture
def store() -> Iterator[FrameStore]:
    store = FrameStore(4, 1 << 20)
    yield store
    store.close()


@pytest.fixture
def regions(store: FrameStore) -> Iterator[Regions]:
    regions = Regions(store, most=2)
    yield regions
    regions.close()


def share(regions: Regions, file: File) -> ClientRegion:
    return regions.share(file.name, SIZE, file.proof)


def test_a_region_is_read_and_written_where_it_lies(regions: Regions, file: File) -> None:
    region = share(regions, file)
    span = regions.span("frame.region", region.handle, 1024, 768)
    span.view[:] = b"\x07" * 768
    assert file.path.read_bytes()[1024:1792] == b"\x07" * 768


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../etc/passwd", "upscale-frames-0123456789abcdef", "upscale-client-" + "g" * 32]
)
def test_no_other_file_has_a_name(regions: Regions, name: str) -> None:
    with pytest.raises(RegionInvalidError, match="accepted is 'upscale-client-' and 32 hexadecimal digits"):
        regions.share(name, SIZE, bytes(32))


def test_a_region_that_is_not_there_is_refused(regions: Regions) -> None:
    with pytest.raises(RegionInvalidError, match="cannot be opened"):
        regions.share(f"upscale-client-{'0' * 32}", SIZE, bytes(32))


def test_a_link_is_not_followed(regions: Regions, files: list[File], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(SIZE))
    files[0].path.unlink()
    files[0].path.symlink_to(secret)
    with pytest.raises(RegionInvalidError, match="cannot be opened"):
        regions.share(files[0].name, SIZE, bytes(32))
    files[1].path.unlink()
    os.link(files[2].path, files[1].path)
    with pytest.raises(RegionInvalidError, match="not a plain file with one name"):
        regions.share(files[1].name, SIZE, files[2].proof)


def test_a_region_open_to_others_is_refused(regions: Regions, file: File) -> None:
    file.path.chmod(0o660)
    with pytest.raises(RegionInvalidError, match="mode 0600"):
        share(regions, file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_region_is_refused(regions: Regions, file: File) -> None:
    os.chown(file.path, 12345, 12345)
    with pytest.raises(RegionInvalidError, match="belong to the service's own user"):
        share(regions, file)


def test_who_cannot_write_to_a_region_does_not_own_it(regions: Regions, file: File) -> None:
    with pytest.raises(RegionInvalidError, match="belongs to somebody else"):
        regions.share(file.name, SIZE, bytes(32))
    with pytest.raises(RegionInvalidError, match="proof has 5 bytes; it must have 32"):
        regions.share(file.name, SIZE, b"short")


def test_a_wrong_size_is_refused(regions: Regions, file: File) -> None:
    for size in (0, SIZE - 1, SIZE + 1):
        with pytest.raises(RegionInvalidError, match=f"byte_size is {size}, but the file has 4096"):
            regions.share(file.name, size, file.proof)


def test_a_region_has_one_client(regions: Regions, file: File) -> None:
    share(regions, file)
    with pytest.raises(RegionInvalidError, match="is shared already"):
        share(regions, file)


def test_there_is_a_limit(regions: Regions, files: list[File]) -> None:
    first, _ = share(regions, files[0]), share(regions, files[1])
    with pytest.raises(OverloadedError, match="2 regions are shared already"):
        share(regions, files[2])
    regions.unshare(first)
    share(regions, files[2])


def test_only_what_is_inside_is_reached_and_only_by_its_handle(regions: Regions, file: File) -> None:
    region = share(regions, file)
    assert regions.span("answer", region.handle, SIZE - 100, 100).size == 100
    for offset in (SIZE - 99, SIZE, 2**64 - 1):
        with pytest.raises(RegionInvalidError, match=f"answer.offset is {offset}: 100 bytes from there end behind"):
            regions.span("answer", region.handle, offset, 100)
    for handle in ("", "x", region.name, file.name):
        with pytest.raises(RegionInvalidError, match=r"frame.region.handle is not one that this service has given out"):
            regions.span("frame.region", handle, 0, 100)
    regions.unshare(region)
    with pytest.raises(RegionInvalidError, match="not one that this service has given out"):
        regions.span("answer", region.handle, 0, 100)


def test_a_region_cut_short_is_not_touched(regions: Regions, file: File) -> None:
    region = share(regions, file)
    span = regions.span("frame.region", region.handle, 0, 768)
    os.truncate(file.path, 100)
    with pytest.raises(RegionInvalidError, match="has 100 bytes now; it was shared with 4096"):
        _ = span.view
    with pytest.raises(RegionInvalidError):
        region.check()


def test_an_answer_is_not_written_over_its_frame(regions: Regions, file: File, store: FrameStore) -> None:
    region = share(regions, file)
    frame = regions.span("frame.region", region.handle, 0, 768)
    for offset in (0, 767):
        with pytest.raises(RegionInvalidError, match="over the frame"):
            regions.borrow(SMALL, frame, regions.span("answer", region.handle, offset, 3072))
    with regions.borrow(SMALL, frame, regions.span("answer", region.handle, 768, 3072)):
        assert store.in_use == 1
    assert store.in_use == 0


def test_memory_is_kept_until_its_last_frame_is_done(regions: Regions, file: File, store: FrameStore) -> None:
    region = share(regions, file)
    slot = regions.borrow(
        SMALL,
        regions.span("frame.region", region.handle, 0, 768),
        regions.span("answer", region.handle, 768, 3072),
    )
    removed = store.subscribe()
    regions.unshare(region)
    assert not removed, "Triton may be reading it"
    slot.answer.view[:] = bytes(3072)
    slot.release()
    assert list(removed) == [region.name]


def test_the_file_of_a_client_that_died_is_removed(regions: Regions, file: File) -> None:
    regions.unshare(share(regions, file))
    assert not file.path.exists()


def test_a_retired_region_is_not_used(regions: Regions, file: File) -> None:
    region = share(regions, file)
    regions.borrow(
        SMALL,
        regions.span("frame.region", region.handle, 0, 768),
        regions.span("answer", region.handle, 768, 3072),
    ).retire()
    with pytest.raises(RegionInvalidError, match="may still write; share another"):
        regions.span("frame.region", region.handle, 0, 768)
