"""`python -m deploy.rollout`: have running Tritons serve another version of a variant, one after the other.

Triton loads what is new before it lets go of what is old, so no frame fails. The gateway's requests name no version: of
those that Triton serves, the latest answers.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from export.errors import RepositoryError
from service.discovery import Discovery

_LOADED_WITHIN_S = 600
"""A TensorRT engine of a large network takes minutes from a slow store."""


class RolloutError(RuntimeError):
    """A Triton does not serve what it was told to; the message says which and why."""


def versions_served(url: str, variant: str) -> list[int]:
    """The versions of a variant that the Triton at `url` serves, ascending.

    Raises:
        RolloutError: it cannot be reached.
    """
    try:
        with InferenceServerClient(url) as triton:
            index: Any = triton.get_model_repository_index()
    except InferenceServerException as error:
        raise RolloutError(f"Triton at {url}: {error.message()}") from None
    return sorted(int(each.version) for each in index.models if each.name == variant and each.state == "READY")


def have_served(url: str, variant: str, versions: list[int], within_s: float = _LOADED_WITHIN_S) -> None:
    """Have the Triton at `url` serve these versions of a variant, and no others.

    It does so until it is restarted; then what its repository says holds.

    Raises:
        RolloutError: it cannot be reached, has no such variant in its repository, or cannot load a version. What it
            served before it serves still.
    """
    try:
        with InferenceServerClient(url) as triton:
            if not versions_served(url, variant):
                # One that is new in the repository: nobody knows its configuration before it is loaded.
                triton.load_model(variant, client_timeout=within_s)
            answer: Any = triton.get_model_config(variant)
            config = MessageToDict(answer.config, preserving_proto_field_name=True)
            config["version_policy"] = {"specific": {"versions": versions}}
            triton.load_model(variant, config=json.dumps(config), client_timeout=within_s)
    except InferenceServerException as error:
        raise RolloutError(f"Triton at {url}: {error.message()}") from None
    # It has loaded them; those it serves no more it lets go when their last frames are answered.
    deadline = time.monotonic() + within_s
    while (served := versions_served(url, variant)) != sorted(versions):
        if time.monotonic() > deadline:
            raise RolloutError(f"Triton at {url} serves {served or 'no'} versions of {variant}, not {versions}")
        time.sleep(0.1)


def rollout(
    variant: Annotated[str, typer.Argument(help="The variant's name in the repository, e.g. runet_x2_clean.")],
    version: Annotated[list[int], typer.Option(help="To serve, and no other; may be repeated: the latest answers.")],
    triton: Annotated[
        str, typer.Option(help="Which Tritons to tell, until they are restarted: as the gateway's setting triton_url.")
    ] = "",
    repository: Annotated[
        Path | None, typer.Option(help="A model repository to write it down in, for Tritons that start later.")
    ] = None,
) -> None:
    """Have Tritons serve some version of a variant, one Triton after the other; stops at the first that cannot."""
    if not triton and repository is None:
        raise typer.BadParameter("say --triton, --repository, or both")
    wanted = sorted(set(version))
    try:
        # Those running first: what they cannot load is not written down.
        for url in _endpoints(triton) if triton else ():
            before = versions_served(url, variant)
            have_served(url, variant, wanted)
            print(f"{url}: {variant} {_named(before)} -> {_named(wanted)}", flush=True)
        if repository is not None:
            from export.repository import serve_versions  # brings in torch, which telling Tritons does not need

            serve_versions(repository / variant, wanted)
            print(f"{repository / variant}: {_named(wanted)} from now on", flush=True)
    except (RolloutError, RepositoryError, ValueError) as error:
        print(f"deploy.rollout: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _endpoints(triton_url: str) -> list[str]:
    found = sorted(asyncio.run(Discovery(triton_url).look()))
    if not found:
        raise RolloutError(f"no Triton is at {triton_url}")
    return found


def _named(versions: list[int]) -> str:
    return ", ".join(map(str, versions)) or "none"


if __name__ == "__main__":
    typer.run(rollout)
