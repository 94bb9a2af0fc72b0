"""The nearest right word, for messages about wrong ones."""

import difflib
from collections.abc import Iterable


def nearest(word: object, known: Iterable[str]) -> str:
    """Returns " Did you mean X?", or the known words where none is near and they are not too many to list."""
    known = sorted(known)
    match = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    if match:
        return f" Did you mean {match[0]!r}?"
    return f" Known: {', '.join(known) or 'none'}." if len(known) <= 60 else ""
