"""Which variant a request means."""

from __future__ import annotations

import pytest

from service.catalog import Catalog, Variant
from service.errors import BackendUnavailableError, FrameInvalidError, ModelUnknownError

RUNET = [Variant(f"runet_x{scale}_clean", "runet", scale, "clean", 8, True, 1) for scale in (2, 3)]
OTHER = Variant("repnet_x2_compressed", "repnet", 2, "compressed", 8, True, 1)


@pytest.fixture
def catalog() -> Catalog:
    catalog = Catalog("runet", "clean", 3840 * 2160)
    catalog.update([*RUNET, OTHER])
    return catalog


@pytest.mark.parametrize(
    ("width", "height", "scale"),
    [(1920, 1080, 2), (1280, 720, 3), (1080, 1920, 2), (640, 360, 3), (1281, 720, 2), (16, 16, 3)],
)
def test_the_largest_scale_that_fits_into_4k_is_chosen(catalog: Catalog, width: int, height: int, scale: int) -> None:
    assert catalog.resolve("", 0, "", width, height).scale == scale


def test_a_scale_asked_for_is_taken(catalog: Catalog) -> None:
    assert catalog.resolve("runet", 2, "clean", 640, 360).name == "runet_x2_clean"


@pytest.mark.parametrize(
    ("model", "scale", "profile", "message"),
    [
        ("nope", 0, "", "model 'nope' is not served; served are: repnet, runet"),
        ("runet", 4, "", r"model 'runet' \(clean\) is not served at scale 4; served are: x2, x3"),
        ("repnet", 0, "", "model 'repnet' is not served for profile 'clean'; served are: compressed"),
        ("repnet", 3, "compressed", "not served at scale 3; served are: x2"),
    ],
)
def test_what_is_not_served_is_told_with_what_is(
    catalog: Catalog, model: str, scale: int, profile: str, message: str
) -> None:
    with pytest.raises(ModelUnknownError, match=message):
        catalog.resolve(model, scale, profile, 640, 360)


@pytest.mark.parametrize("scale", [0, 2])
def test_an_answer_beyond_4k_is_refused(catalog: Catalog, scale: int) -> None:
    with pytest.raises(FrameInvalidError, match="frame of 1921x1080: x2 would give 3842x2160, more than the 8294400"):
        catalog.resolve("", scale, "", 1921, 1080)


def test_an_absurd_size_is_refused(catalog: Catalog) -> None:
    with pytest.raises(FrameInvalidError):
        catalog.resolve("", 0, "", 2**32 - 1, 2**32 - 1)


def test_before_triton_was_reached_nothing_is_unknown() -> None:
    with pytest.raises(BackendUnavailableError, match="no models are known yet"):
        Catalog("runet", "clean", 3840 * 2160).resolve("nope", 0, "", 640, 360)


def test_a_variant_that_goes_away_stays_known_but_is_not_ready(catalog: Catalog) -> None:
    catalog.update([OTHER])
    assert catalog.resolve("", 2, "", 640, 360).name == "runet_x2_clean"
    assert not catalog.is_ready("runet_x2_clean")
    assert catalog.is_ready("repnet_x2_compressed")
    assert [variant.name for variant in catalog.variants] == [
        "repnet_x2_compressed",
        "runet_x2_clean",
        "runet_x3_clean",
    ]
