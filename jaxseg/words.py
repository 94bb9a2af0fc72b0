"""Words in messages: the nearest right one to a wrong one, and the first of many."""

import difflib
from collections.abc import Iterable


def nearest(word: object, known: Iterable[str], *, listing: bool = True) -> str:
    """Returns " Did you mean X?", or where none is near the known words, if `listing` and not too many to list."""
    known = sorted(known)
    match = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    if match:
        return f" Did you mean {match[0]!r}?"
    return f" Known: {', '.join(known) or 'none'}." if listing and len(known) <= 60 else ""


def some(names: Iterable[str], limit: int = 20) -> str:
    """Returns the first `limit` names with commas, and how many more there are; "nothing" for none."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + more
