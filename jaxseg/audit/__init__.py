"""Finds labels that are likely wrong: ranks the images, regions and pixels of a split by what trained networks say.

    from jaxseg.audit import audit

    found = audit([load("runs/fold1"), load("runs/fold2"), load("runs/fold3")])
    print(found)
    found.images[0].name, found.regions[0].doubt

The functions of `confident`, `scores`, `shift` and `regions` take arrays of one image and need no run.
"""

from jaxseg.audit.auditing import Audit, ImageRow, RegionRow, audit
from jaxseg.audit.regions import Doubt
from jaxseg.audit.scores import ImageScores, PixelScores

__all__ = ["Audit", "Doubt", "ImageRow", "ImageScores", "PixelScores", "RegionRow", "audit"]
