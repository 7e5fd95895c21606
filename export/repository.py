"""The Triton model repository on disk: a variant appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.errors import RepositoryError


def check_writable(repository: Path) -> None:
    """Fail early, before minutes of work.

    Raises:
        RepositoryError: `repository` cannot be created or written.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RepositoryError(f"cannot create the model repository {repository}: {error.strerror}") from None
    if not os.access(repository, os.W_OK | os.X_OK):
        raise RepositoryError(f"the model repository {repository} is not writable")


def write_variant(
    repository: Path, variant: str, config: str, model_file: str, model: bytes, manifest: Mapping[str, Any]
) -> Path:
    """Write `<repository>/<variant>/{config.pbtxt,manifest.json,1/<model_file>}`, replacing what is there by renames.

    Raises:
        RepositoryError: the disk refuses.
    """
    final = repository / variant
    partial = repository / f".{variant}.partial-{os.getpid()}"
    replaced = repository / f".{variant}.replaced-{os.getpid()}"
    try:
        (partial / "1").mkdir(parents=True)
        (partial / "1" / model_file).write_bytes(model)
        (partial / "config.pbtxt").write_text(config)
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        if final.exists():
            final.rename(replaced)
        partial.rename(final)
    except OSError as error:
        if replaced.exists() and not final.exists():
            replaced.rename(final)
        raise RepositoryError(f"cannot write {final}: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return final
