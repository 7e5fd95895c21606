"""A gateway that does not share its /dev/shm with Triton, and one whose /dev/shm is full."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.embedded import EmbeddedTriton
from tests.conftest import StartGateway
from upscale_client import OverloadedError, UnavailableError, UpscaleClient

Pixels = NDArray[np.uint8]
FRAME = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


def own_shared_memory(size: str) -> list[str]:
    """Starts a command in a mount namespace with a /dev/shm of its own, as a container has."""
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mount namespaces (unshare --mount needs root)")
    return wrapper


def test_a_triton_that_cannot_see_the_memory_gets_bytes(
    triton: EmbeddedTriton, start_gateway: StartGateway, client: UpscaleClient
) -> None:
    apart = start_gateway(triton.url, wrapper=own_shared_memory("1g"))
    with UpscaleClient(apart.address) as by_bytes:
        assert np.array_equal(by_bytes.upscale(FRAME).array, client.upscale(FRAME).array)
    apart.stop()


def test_who_insists_on_shared_memory_is_told(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    apart = start_gateway(triton.url, wrapper=own_shared_memory("1g"), triton_shared_memory="on")
    with UpscaleClient(apart.address) as client, pytest.raises(UnavailableError, match="triton_shared_memory is 'on'"):
        client.upscale(FRAME)
    apart.stop()


def test_a_full_shared_memory_refuses_what_does_not_fit_and_serves_the_rest(
    triton: EmbeddedTriton, start_gateway: StartGateway, lr_720p: Pixels
) -> None:
    tight = start_gateway(triton.url, wrapper=own_shared_memory("20m"))
    with UpscaleClient(tight.address) as client:
        for _ in range(2):
            with pytest.raises(OverloadedError, match="no shared memory for a frame: No space left on device"):
                client.upscale(lr_720p)
            assert client.upscale(FRAME).width == 480
    tight.stop()
