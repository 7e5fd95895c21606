"""The peer LitServe: RGB bytes in, RGB bytes out, over HTTP. Run with PEER_MODEL, PEER_THREADS and PEER_PORT set."""

import os
from typing import Annotated

import litserve
import numpy as np
from fastapi import Body, Response
from networks import network, pixels


class Upscaler(litserve.LitAPI):
    """One worker, as the gateway's Triton has one instance."""

    def setup(self, device: str) -> None:
        """Load the network in the worker."""
        self._upscale = network()

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]) -> np.ndarray:
        """The body as a frame."""
        return pixels(request)

    def predict(self, frame: np.ndarray) -> np.ndarray:
        """The enlarged frame."""
        return self._upscale(frame)

    def encode_response(self, output: np.ndarray) -> Response:
        """The enlarged frame as a body."""
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    # Not fast_queue: for answers of 25 MB LitServe's ZeroMQ transport was the slower one.
    server = litserve.LitServer(Upscaler(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False, log_level="warning")
