"""The Triton model repository on disk: a variant appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.errors import RepositoryError
from export.triton_config import same_but_for_versions, served_versions, with_served_versions

CONFIG = "config.pbtxt"


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
    repository: Path,
    variant: str,
    config: str,
    model_file: str,
    model: bytes,
    manifest: Mapping[str, Any],
    version: int = 1,
) -> Path:
    """Write `<repository>/<variant>/config.pbtxt` and, in `<version>/` beside it, the model file and manifest.json.

    The variant is replaced by renames. Its other versions stay, and which of them Triton serves stays, too: a version
    beside others is served when somebody says so (`serve_versions`).

    Raises:
        RepositoryError: the disk refuses, or the versions there have another configuration: Triton knows one for all.
    """
    final = repository / variant
    partial = repository / f".{variant}.partial-{os.getpid()}"
    replaced = repository / f".{variant}.replaced-{os.getpid()}"
    others = [each for each in versions(final) if each != version]
    if others:
        there = (final / CONFIG).read_text()
        if not same_but_for_versions(there, config):
            raise RepositoryError(
                f"version {version} of {variant} would need another configuration than version {others[-1]} beside it "
                f"in {final}: remove that, or write to another repository"
            )
        config = there if served_versions(there) else with_served_versions(there, [max(others)])
    try:
        partial.mkdir(parents=True)
        for other in others:
            shutil.copytree(final / str(other), partial / str(other), copy_function=os.link)
        folder = partial / str(version)
        folder.mkdir()
        (folder / model_file).write_bytes(model)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        (partial / CONFIG).write_text(config)
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


def versions(variant: Path) -> list[int]:
    """The versions in a variant's folder, ascending; none if there is no such folder."""
    return sorted(int(each.name) for each in variant.glob("*") if each.name.isdecimal())


def serve_versions(variant: Path, wanted: Sequence[int]) -> None:
    """Have every Triton that loads a variant from now on serve these of its versions, and no others.

    Raises:
        RepositoryError: there is no such variant or version, or the disk refuses.
    """
    if missing := sorted(set(wanted) - set(versions(variant))):
        raise RepositoryError(f"{variant} has no version {missing[0]}; it has {versions(variant) or 'none'}")
    new = variant / f".{CONFIG}.partial-{os.getpid()}"
    try:
        new.write_text(with_served_versions((variant / CONFIG).read_text(), wanted))
        new.rename(variant / CONFIG)
    except OSError as error:
        raise RepositoryError(f"cannot write {variant / CONFIG}: {error.strerror}") from None
    finally:
        new.unlink(missing_ok=True)
