"""Python's collector of garbage while a training starts.

What is imported lives to the end, and so does most of what tracing makes. To look through all of it as often as Python
does by default takes a twentieth of the time to the first step. Afterwards, each prediction sheet and evaluation leaves
garbage that should go as soon as by default.
"""

import gc
from collections.abc import Callable

_THRESHOLDS = (200_000, 20, 100)


def look_rarely() -> Callable[[], None]:
    """Leaves out of the collection what there is now, and collects rarely; returns what ends both, once."""
    before = gc.get_threshold()
    frozen = not gc.get_freeze_count()  # objects that somebody else froze stay so
    if frozen:
        gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    ended = False

    def end() -> None:
        nonlocal ended
        if ended:
            return
        ended = True
        gc.set_threshold(*before)
        if frozen:
            gc.unfreeze()

    return end
