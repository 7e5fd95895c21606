"""Which variants Triton serves, and which of them a request means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.errors import BackendUnavailableError, FrameInvalidError, ModelUnknownError
from service.frames import PixelFormat


@dataclass(frozen=True)
class Variant:
    """A trained network as Triton serves it."""

    name: str
    model: str
    scale: int
    profile: str
    max_batch_frames: int
    trained: bool
    """False for random weights, which are there to measure speed."""
    instances: int
    """How many batches Triton infers at the same time."""
    pixels: PixelFormat = "rgb24"
    """What the frames and the answers are."""


class Catalog:
    """The variants known by now. One that Triton stops serving stays known: it is unavailable then, not unknown.

    Args:
        default_model, default_profile: of a request that names none.
        max_output_pixels: the largest answer, width times height.
        ladder: models, best first, that may answer for a better one.
    """

    def __init__(
        self, default_model: str, default_profile: str, max_output_pixels: int, ladder: Sequence[str] = ()
    ) -> None:
        self.default_model = default_model
        self.default_profile = default_profile
        self._max_output_pixels = max_output_pixels
        self._ladder = ladder
        self._known: dict[str, Variant] = {}
        self._ready: frozenset[str] = frozenset()

    def update(self, serving: Iterable[Variant]) -> None:
        """Replace what is ready by what Triton serves now."""
        current = {variant.name: variant for variant in serving}
        self._known |= current
        self._ready = frozenset(current)

    @property
    def variants(self) -> list[Variant]:
        """All known variants by name."""
        return [self._known[name] for name in sorted(self._known)]

    def is_ready(self, name: str) -> bool:
        """Whether Triton serves the variant now."""
        return name in self._ready

    def rungs(self, asked: Variant) -> list[Variant]:
        """What may answer if a variant is asked for that may be stepped down from, best first.

        That is itself, and the lesser models of the ladder for the same frames; all of them if it is not on it.
        """
        lesser = self._ladder[self._ladder.index(asked.model) + 1 :] if asked.model in self._ladder else self._ladder
        alike = {
            variant.model: variant
            for variant in self._known.values()
            if variant.trained
            and (variant.scale, variant.profile, variant.pixels) == (asked.scale, asked.profile, asked.pixels)
        }
        return [asked, *(alike[model] for model in lesser if model in alike)]

    def resolve(
        self, model: str, scale: int, profile: str, width: int, height: int, pixels: PixelFormat = "rgb24"
    ) -> Variant:
        """The variant for a frame of width x height pixels; empty strings and 0 stand for the defaults.

        Raises:
            ModelUnknownError: no such model, profile, pixel format or scale; the message lists those there are.
            FrameInvalidError: the answer would be too large.
            BackendUnavailableError: nothing has been served yet, so nobody can say.
        """
        if not self._known:
            raise BackendUnavailableError("no models are known yet: Triton has not been reached, or holds none")
        model = model or self.default_model
        profile = profile or self.default_profile
        of_model = [variant for variant in self._known.values() if variant.model == model]
        if not of_model:
            known = ", ".join(sorted({variant.model for variant in self._known.values()}))
            raise ModelUnknownError(f"model {model!r} is not served; served are: {known}")
        if not (right := [variant for variant in of_model if variant.profile == profile]):
            known = ", ".join(sorted({variant.profile for variant in of_model}))
            raise ModelUnknownError(f"model {model!r} is not served for profile {profile!r}; served are: {known}")
        of_profile = {variant.scale: variant for variant in right if variant.pixels == pixels}
        if not of_profile:
            known = ", ".join(sorted({variant.pixels for variant in right}))
            raise ModelUnknownError(
                f"model {model!r} ({profile}) is not served for {pixels} frames; served are: {known}"
            )
        scales = ", ".join(f"x{each}" for each in sorted(of_profile))
        if scale and scale not in of_profile:
            raise ModelUnknownError(f"model {model!r} ({profile}) is not served at scale {scale}; served are: {scales}")
        wanted = [scale] if scale else sorted(of_profile, reverse=True)
        for each in wanted:
            if width * height * each**2 <= self._max_output_pixels:
                return of_profile[each]
        least = wanted[-1]
        raise FrameInvalidError(
            f"frame of {width}x{height}: x{least} would give {width * least}x{height * least}, "
            f"more than the {self._max_output_pixels} pixels allowed"
        )
