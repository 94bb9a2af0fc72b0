"""A map of numbers in shades from black over red to yellow, which also differ in brightness."""

import numpy as np

# Levels of the ramp: red, green, blue of 0, 1/4, 1/2, 3/4 and 1; the luma rises from each to the next.
_RAMP = np.array([(0, 0, 0), (80, 18, 110), (190, 48, 78), (245, 140, 30), (252, 250, 160)], np.float64)


def shades(values: np.ndarray, largest: float) -> np.ndarray:
    """Returns u8[h,w,3]: black for 0 and below, light yellow for `largest` and above, grey where a value is NaN.

    Args:
        values: f[h,w].
        largest: above 0.

    Raises:
        ValueError: if `largest` is not above 0.
    """
    if not largest > 0:
        raise ValueError(f"The largest value must be above 0, got {largest}.")
    values = np.asarray(values, np.float64)
    place = np.clip(np.nan_to_num(values / largest), 0.0, 1.0)
    levels = np.linspace(0.0, 1.0, len(_RAMP))
    drawn = np.stack([np.interp(place, levels, _RAMP[:, channel]) for channel in range(3)], axis=-1)
    return np.where(np.isnan(values)[..., None], 128.0, np.round(drawn)).astype(np.uint8)
