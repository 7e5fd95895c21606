"""Finds the methods: every module of `models` that defines a `SPEC` is one. Adding a method is adding a file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import models
from models.spec import ModelSpec


class UnknownModelError(LookupError):
    """No method has this name."""


class UnsupportedScaleError(LookupError):
    """The method does not exist for this scale."""


@cache
def specs() -> Mapping[str, ModelSpec]:
    """All methods by name, in alphabetical order."""
    found: dict[str, ModelSpec] = {}
    for module in pkgutil.iter_modules(models.__path__):
        spec = getattr(importlib.import_module(f"models.{module.name}"), "SPEC", None)
        if spec is None:
            continue
        if spec.name in found:
            raise RuntimeError(f"two files define a model named {spec.name!r}. This is a bug.")
        found[spec.name] = spec
    return MappingProxyType(dict(sorted(found.items())))


def get(name: str) -> ModelSpec:
    """The method called `name`.

    Raises:
        UnknownModelError: there is none; the message lists those there are.
    """
    try:
        return specs()[name]
    except KeyError:
        raise UnknownModelError(f"unknown model {name!r}; known are: {', '.join(specs())}") from None


def require_scale(spec: ModelSpec, scale: int) -> int:
    """`scale`, if the method exists for it.

    Raises:
        UnsupportedScaleError: it does not; the message lists its scales.
    """
    if scale not in spec.scales:
        known = ", ".join(f"x{known}" for known in spec.scales)
        raise UnsupportedScaleError(f"model {spec.name!r} has no x{scale}; its scales are: {known}")
    return scale
