"""Masks that fit their image better mirrored or moved."""

import numpy as np
import pytest

from jaxseg.data.mask_fit import mask_fit
from jaxseg.types import IGNORE


@pytest.fixture(scope="module")
def example() -> tuple[np.ndarray, np.ndarray]:
    """A bright L of 60x90 pixels off the middle, in noise."""
    label = np.zeros((120, 160), np.uint8)
    label[15:75, 20:40] = 1
    label[55:75, 20:110] = 1
    noise = np.random.default_rng(0).normal(0, 12, (120, 160, 3))
    return np.clip(60 + 120 * label[..., None] + noise, 0, 255).astype(np.uint8), label


@pytest.mark.parametrize(
    "change, form",
    [
        (lambda label: label[:, ::-1], "mirrored left to right"),
        (lambda label: label[::-1], "mirrored top to bottom"),
        (lambda label: label[::-1, ::-1], "turned by 180 degrees"),
        (lambda label: np.roll(label, (-8, 12), (0, 1)), "moved by 12 pixels to the left and 8 down"),
    ],
)
def test_a_mask_in_another_form_is_doubtful_and_its_form_is_named(example, change, form):
    image, label = example
    fit = mask_fit(image, change(label), IGNORE)
    assert fit is not None and fit.doubtful and fit.form == form
    right = mask_fit(image, label, IGNORE)
    assert right is not None and not right.doubtful and right.own == pytest.approx(fit.other, rel=0.05)
    wide = np.repeat(np.repeat(image, 4, 0), 4, 1).astype(np.uint16) * 257  # in 16 bits, reduced to 256 pixels
    large = mask_fit(wide, change(np.repeat(np.repeat(label, 4, 0), 4, 1)), IGNORE)
    assert large is not None and large.doubtful and large.form.split(" by ")[0] == form.split(" by ")[0]


def test_what_says_nothing_is_left_out(example):
    image, label = example
    assert mask_fit(np.full_like(image, 7), label, IGNORE) is None  # a flat image
    assert mask_fit(image, np.zeros_like(label), IGNORE) is None  # no edge
    unknown = np.where(label == 1, IGNORE, label).astype(np.uint8)
    assert mask_fit(image, unknown, IGNORE) is None  # edges along what is ignored are none
    noise = np.random.default_rng(1).integers(0, 256, image.shape, np.uint8)
    fit = mask_fit(noise, label[:, ::-1], IGNORE)
    assert fit is not None and not fit.doubtful
