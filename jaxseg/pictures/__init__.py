"""Pictures of labels, predictions, curves and confusion matrices, written to PNG files atomically.

Label maps are integers [h,w]: class indices and IGNORE, which is 65535 of more than 255 classes. Colours are one (red,
green, blue) in 0..255 per class. PIL and matplotlib are imported only where a picture is drawn.
"""

from jaxseg.pictures.colors import IGNORE_COLOR, RIGHT_COLOR, WRONG_COLOR, Colors, colorize, default_colors
from jaxseg.pictures.confusion import confusion_picture
from jaxseg.pictures.figure import noting_errors
from jaxseg.pictures.images import error_map, grid, overlay, save_image, to_rgb
from jaxseg.pictures.learning_curves import curves
from jaxseg.pictures.outlines import OUTLINES, outlines
from jaxseg.pictures.shades import shades
from jaxseg.pictures.sheets import doubt_sheet, overlay_sheet, prediction_sheet

__all__ = [
    "IGNORE_COLOR",
    "OUTLINES",
    "RIGHT_COLOR",
    "WRONG_COLOR",
    "Colors",
    "colorize",
    "confusion_picture",
    "curves",
    "default_colors",
    "doubt_sheet",
    "error_map",
    "grid",
    "noting_errors",
    "outlines",
    "overlay",
    "overlay_sheet",
    "prediction_sheet",
    "save_image",
    "shades",
    "to_rgb",
]
