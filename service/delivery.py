"""Whether what was sent to a client is with it, where its connection may be closed when its last call ends.

gRPC takes an answer for sent when the kernel has it, and closes a connection that was told to go away when its last
call has ended. Closed, it is reset as soon as the client says anything more, if only that it has read some of the
answer; what the kernel still has of that is lost then. On a slow link that is megabytes of a 4K frame.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import socket
import struct
import termios
from pathlib import Path
from urllib.parse import unquote

_LOOK_AFTER_S = (0.001, 0.01)
"""At first, and at most; it doubles."""


class Delivery:
    """Keeps calls open until the client's kernel has what they sent.

    Args:
        always: because connections may end at any time; otherwise from `begin` on.
    """

    def __init__(self, *, always: bool = False) -> None:
        self._begun = always

    def begin(self) -> None:
        """Connections may end from now on."""
        self._begun = True

    async def wait(self, peer: str) -> None:
        """Until nothing is on its way to this peer (gRPC's name for it) any more; at once, if it was not begun."""
        pause_s, most_s = _LOOK_AFTER_S
        while self._begun and unacknowledged(peer):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, most_s)


def unacknowledged(peer: str) -> int:
    """Bytes that were sent to this peer on this process's connections, and that its kernel has not acknowledged."""
    family, _, address = peer.partition(":")
    if family not in ("ipv4", "ipv6"):  # a Unix socket's other side has what was sent
        return 0
    host, _, port = unquote(address).rpartition(":")
    wanted = _address(host.strip("[]")), int(port)
    total = 0
    for file in Path("/proc/self/fd").iterdir():
        connection = _connection(int(file.name))
        if connection is None:
            continue
        try:
            remote, remote_port, *_ = connection.getpeername()
            if remote_port == wanted[1] and _address(remote) == wanted[0]:
                (waiting,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
                total += waiting
        except OSError:  # not connected, or closed meanwhile
            continue
        finally:
            connection.detach()  # it is gRPC's
    return total


def _connection(descriptor: int) -> socket.socket | None:
    """The TCP socket that this is; the caller must detach it."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:  # no socket
        return None
    if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
        return found
    found.detach()
    return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(host.partition("%")[0])
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found
