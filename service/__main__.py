"""Entry point of `python -m service`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from pydantic import ValidationError
from pydantic_settings import CliApp

from service import logs
from service.settings import Settings, unknown_variables

log = logging.getLogger("service")


def main() -> None:
    """Read the settings, run the gateway; what an operator can mend is one line and exit code 2."""
    try:
        settings = CliApp.run(Settings)
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(map(str, problem["loc"])) or "settings"
            print(f"service: {name}: {problem['msg']} (got {problem['input']!r})", file=sys.stderr)
        raise SystemExit(2) from None
    logs.configure(settings)
    # Not before: what brings gRPC in fixes how gRPC logs.
    from service.app import StartError, serve
    from service.workers import run_workers
    from upscale_client.allocator import keep_large_buffers

    for name in unknown_variables(os.environ):
        log.warning("%s is no setting: is it misspelt?", name)
    if not keep_large_buffers():
        log.warning("the allocator cannot be tuned here: frames will cost page faults")
    log.info("settings: %s", settings.model_dump_json())
    try:
        if settings.workers > 1:
            run_workers(settings)
        else:
            asyncio.run(serve(settings))
    except StartError as error:
        logs.tell_the_end(settings, str(error))
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
