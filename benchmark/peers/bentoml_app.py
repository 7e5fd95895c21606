"""The peer BentoML: RGB bytes in, RGB bytes out, over HTTP. Served with PEER_MODEL and PEER_THREADS set.

Twice: by BentoML's own API, and as a web application that BentoML only hosts, which is faster and knows nothing of
BentoML's types, batches and metrics.
"""

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from fastapi import FastAPI, Request, Response
from networks import network, pixels
from starlette.concurrency import run_in_threadpool

_BYTES = "application/octet-stream"
hosted = FastAPI()


@bentoml.service(workers=1)
class Upscaler:
    """One worker, as the gateway's Triton has one instance."""

    def __init__(self) -> None:
        self._upscale = network()

    @bentoml.api(route="/predict")
    def predict(self, frame: Annotated[Path, ContentType(_BYTES)], /) -> Annotated[bytes, ContentType(_BYTES)]:
        """The enlarged frame. BentoML hands a body of bytes over as a file, and refuses numpy but as JSON."""
        return self._upscale(pixels(frame.read_bytes())).tobytes()


@bentoml.service(workers=1)
@bentoml.asgi_app(hosted)
class Hosted:
    """The same without BentoML's API."""

    def __init__(self) -> None:
        self._upscale = network()

    @hosted.post("/predict")
    async def predict(self, request: Request) -> Response:
        """The enlarged frame."""
        body = await request.body()
        return Response(await run_in_threadpool(lambda: self._upscale(pixels(body)).tobytes()), media_type=_BYTES)
