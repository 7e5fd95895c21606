"""Hosts of one's own for a test: each a thread with a network and a /dev/shm of its own, joined by a switch.

What a thread starts lives where it does. With the threads everything goes: nothing has a name on the machine.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")
_NETWORK, _MOUNTS = 0x40000000, 0x00020000  # CLONE_NEWNET and CLONE_NEWNS; os.unshare comes with Python 3.12
_LIBC = ctypes.CDLL(None, use_errno=True)


class Host:
    """A host, at first without a network.

    Raises:
        pytest.skip.Exception: the machine allows none; says why.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.thread_id = self.do(self._enter)
        self.address = ""

    def _enter(self) -> int:
        if _LIBC.unshare(_NETWORK | _MOUNTS):
            reason = os.strerror(ctypes.get_errno())
            pytest.skip(f"this machine allows no network and mount namespaces (unshare: {reason}; they need root)")
        # Nothing that is mounted here shall be seen elsewhere.
        for command in ("mount --make-rprivate /", "mount -t tmpfs -o size=1g tmpfs /dev/shm", "ip link set lo up"):
            subprocess.run(command.split(), check=True, capture_output=True)
        return threading.get_native_id()

    def do(self, work: Callable[[], T]) -> T:
        """Do something there; sockets belong to where they are made, and processes to where they are started."""
        return self._thread.submit(work).result()

    def run(self, command: str) -> str:
        """Run a command there; returns what it prints."""
        return self.do(lambda: subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout)

    def shared_memory(self) -> set[str]:
        """What lies in its /dev/shm."""
        return self.do(lambda: {path.name for path in Path("/dev/shm").iterdir()})

    def close(self) -> None:
        """End it; what runs there still is asked to end."""
        self._thread.shutdown()


class Switch:
    """Joins hosts; may cut one off."""

    def __init__(self) -> None:
        self._host = Host("switch")
        self._host.run("ip link add switch type bridge")
        self._host.run("ip link set switch up")
        self._ports: dict[str, str] = {}

    def join(self, host: Host) -> None:
        """Give a host a cable and an address."""
        number = len(self._ports) + 1
        host.address, port = f"10.77.0.{number}", f"port{number}"
        self._host.run(f"ip link add {port} type veth peer name eth0 netns {host.thread_id}")
        self._host.run(f"ip link set {port} master switch up")
        host.run(f"ip address add {host.address}/24 dev eth0")
        host.run("ip link set eth0 up")
        self._ports[host.address] = port

    def cut(self, host: Host) -> None:
        """Whatever goes to the host or comes from it is lost, and nobody is told."""
        self._host.run(f"ip link set {self._ports[host.address]} down")

    def mend(self, host: Host) -> None:
        """Undo `cut`."""
        self._host.run(f"ip link set {self._ports[host.address]} up")

    def close(self) -> None:
        """End it, and with it all cables."""
        self._host.close()
