"""Pictures never stop a run: an error in drawing one is a message."""

import contextlib
from collections.abc import Iterator

from jaxseg.errors import first_line
from jaxseg.run.report import Reporter


@contextlib.contextmanager
def drawing(reporter: Reporter) -> Iterator[None]:
    """Reports any error in drawing a picture as a warning, so that it does not stop the run."""
    try:
        yield
    except Exception as error:  # whatever a drawing library raises for names, sizes and fonts
        reporter.message(f"warning: a picture cannot be drawn: {first_line(error)}.")
