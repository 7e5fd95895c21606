"""gRPC passes over options that it does not know, without a word."""

from __future__ import annotations

import re
from pathlib import Path

from grpc._cython import cygrpc

ROOT = Path(__file__).resolve().parents[2]


def test_grpc_knows_every_option_that_it_is_given() -> None:
    sources = [path for folder in ("service", "upscale_client") for path in (ROOT / folder).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r'\("(grpc\.[\w.]+)",', path.read_text())}
    library = Path(cygrpc.__file__).read_bytes()
    assert len(named) > 10
    assert not {name for name in named if name.encode() + b"\0" not in library}
