"""What the kernel still has of a connection, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from service.delivery import Delivery, unacknowledged


async def test_waits_until_the_other_side_has_it() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        port = listener.getsockname()[1]
        sender = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        receiver, _ = listener.accept()
        stack.enter_context(receiver)
        peer = f"ipv4:127.0.0.1:{port}"
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.send(bytes(65536))
        assert unacknowledged(peer) > 0
        assert unacknowledged(f"ipv6:%5B::ffff:127.0.0.1%5D:{port}") > 0
        assert unacknowledged(f"ipv4:127.0.0.2:{port}") == 0

        delivery = Delivery()
        await delivery.wait(peer)  # not begun
        delivery.begin()
        await delivery.wait("unix:")
        waiting = asyncio.create_task(delivery.wait(peer))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        receiver.setblocking(False)
        async with asyncio.timeout(10):
            while not waiting.done():
                with contextlib.suppress(BlockingIOError):
                    receiver.recv(1 << 20)
                await asyncio.sleep(0)
        assert unacknowledged(peer) == 0
