"""Draws an image under every corruption at the strengths 1, 3 and 5, for docs/corruptions.md.

python benchmarks/corruption_picture.py --image FILE --out docs/images/corruptions.jpg
"""

import argparse
import sys
from collections.abc import Sequence

import matplotlib.pyplot as plt

from jaxseg.data.corruptions import CORRUPTIONS, corrupt_stored
from jaxseg.data.images import read_image

STRENGTHS = (1, 3, 5)
SIDE = 224  # the pixels a side of the images that the strengths are of
COLUMNS = 6


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, metavar="FILE", help="an image; its middle is shown")
    parser.add_argument("--out", required=True, metavar="FILE", help="the picture, FILE.jpg")
    options = parser.parse_args(argv)
    image = read_image(options.image, 3)
    top, left = ((size - SIDE) // 2 if size > SIDE else 0 for size in image.shape[:2])
    image = image[top : top + SIDE, left : left + SIDE]
    rows = len(STRENGTHS) * -(-len(CORRUPTIONS) // COLUMNS)
    figure, axes = plt.subplots(rows, 1 + COLUMNS, figsize=(1.3 * (1 + COLUMNS), 1.36 * rows), squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    for number, name in enumerate(CORRUPTIONS):
        block = len(STRENGTHS) * (number // COLUMNS)
        for row, strength in enumerate(STRENGTHS):
            panel = axes[block + row, 1 + number % COLUMNS]
            panel.imshow(corrupt_stored(image, name, strength), interpolation="nearest")
            panel.set_title(name.replace("_", " ") if row == 0 else "", fontsize=8, pad=2)
            if number % COLUMNS == 0:
                place = {"rotation": 90, "ha": "right", "va": "center", "transform": panel.transAxes}
                panel.text(-0.03, 0.5, f"strength {strength}", fontsize=8, **place)
    axes[0, 0].imshow(image, interpolation="nearest")
    axes[0, 0].set_title("the image", fontsize=8, pad=2)
    figure.tight_layout(pad=0.2)
    figure.savefig(options.out, dpi=110, pil_kwargs={"quality": 75, "optimize": True})
    return 0


if __name__ == "__main__":
    sys.exit(main())
