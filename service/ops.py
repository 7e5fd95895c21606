"""What those who run the service ask it, over plain HTTP on a port of its own: /metrics, /livez and /readyz.

Neither encrypted nor guarded, for Prometheus and a kubelet bring no token: keep the port inside.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    timeout = 10
    """A connection on which nothing comes for so long is closed."""

    def log_message(self, format: str, *args: object) -> None:
        """A line for each look at the metrics would be noise."""


class OpsServer:
    """Answers in threads of its own, so that it can tell when the service itself does not.

    Args:
        host: the address to listen on.
        port: 0 picks a free one.
        registry: what /metrics shows.
        alive: whether the process works; if not, it should be killed.
        ready: whether frames can be answered now; if not, they should be sent elsewhere.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        alive: Callable[[], bool] = lambda: True,
        ready: Callable[[], bool],
    ) -> None:
        self._metrics: Any = make_wsgi_app(registry)
        self._checks = {"/livez": alive, "/readyz": ready}
        kind = _ServerV6 if ":" in host else _Server
        self._server = make_server(host, port, self._answer, kind, _Quiet)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="ops", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environ, start_response)
        if path in self._checks:
            good = self._checks[path]()
            status, text = ("200 OK", "ok\n") if good else ("503 Service Unavailable", "no\n")
        else:
            status, text = "404 Not Found", "here are /metrics, /livez and /readyz\n"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")])
        return [text.encode()]
