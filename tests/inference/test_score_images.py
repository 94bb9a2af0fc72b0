"""What the median time of an image is worth."""

import math

from jaxseg.inference.score_images import typical_seconds

SMALL, LARGE = (4, 4, 3), (8, 8, 3)


def test_the_time_of_an_image_is_without_compilation():
    """The first image of each shape compiles a program, which takes as long as many images."""
    times = [(SMALL, 90.0), (SMALL, 2.0), (LARGE, 70.0), (SMALL, 3.0), (LARGE, 4.0)]
    assert typical_seconds(times) == 3.0


def test_too_few_images_have_no_time():
    assert math.isnan(typical_seconds([]))
    assert math.isnan(typical_seconds([(SMALL, 90.0), (SMALL, 2.0), (SMALL, 2.0), (LARGE, 2.0)]))
