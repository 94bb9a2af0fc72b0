"""The frame of a page: what stands around its sections, how text of users enters it, and pictures as data URLs."""

import base64
import html
import importlib.resources
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxseg.errors import ConfigError, printable
from jaxseg.files import write_text
from jaxseg.pictures import marks

if TYPE_CHECKING:
    from PIL import Image

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What a page may load: nothing but what stands inside it."""


class Section(NamedTuple):
    """A part of a page: its heading, its name in the address, and its content as HTML."""

    title: str
    name: str
    content: str


def escape(text: object) -> str:
    """Returns text for HTML, inside elements and quoted attributes; what no page shows is written as `printable`."""
    return html.escape(printable(str(text)))


def embed(data: Any) -> str:
    """Returns JSON for the inside of a script element, which no text in it can end, for it has neither "<" nor ">"."""
    return json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e")


def data_url(picture: "Image.Image", form: str, quality: int = 85) -> str:
    """Returns a picture as a data URL, form "PNG" or "JPEG"."""
    file = io.BytesIO()
    picture.save(file, form, **({"quality": quality} if form == "JPEG" else {"optimize": True}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def mark(program: str) -> str:
    """Returns what a page has in its head, by which a later call of the program knows that it may replace it."""
    return f'<meta name="generator" content="{program}">'


def is_page(file: Path, program: str) -> bool:
    """Returns whether a file is a page that a program such as "jaxseg report" wrote."""
    with file.open("rb") as stream:
        return mark(program).encode() in stream.read(2048)


def require_own_page(file: Path, program: str, instead: str) -> None:
    """Raises ConfigError if a page would replace a file that no `program` wrote; `instead` says what to do."""
    if file.is_dir():
        raise ConfigError(f"The output {file} is a folder; {instead}.")
    if file.exists() and not is_page(file, program):
        raise marks.refusal(file, instead)


def write_page(file: Path, text: str, program: str, instead: str) -> None:
    """Writes a page atomically.

    Raises:
        ConfigError: if it cannot be written, or would replace a file of someone else.
    """
    require_own_page(file, program, instead)
    try:
        write_text(file, text)
    except OSError as error:
        raise ConfigError(f"The page {file} cannot be written: {error.strerror or error}.") from error


def make_page(program: str, title: str, about: str, sections: Sequence[Section]) -> str:
    """Returns the text of a page.

    Args:
        program: what writes it, see `is_page`.
        title: its heading, as text.
        about: HTML under the heading.
        sections: its parts, in their order; each has a link at the top.
    """
    links = "".join(f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in sections)
    parts = "\n".join(
        f'<section id="{part.name}" aria-labelledby="{part.name}-title"><h2 id="{part.name}-title">'
        f"{escape(part.title)}</h2>\n{part.content}\n</section>"
        for part in sections
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{mark(program)}
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_own("page.css")}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>{escape(title)}</h1>
<button id="theme" type="button" hidden>Theme: as the system</button>
<div class="about">{about}</div>
<nav aria-label="Parts of the page"><ul>{links}</ul></nav>
</header>
<main id="content">
{parts}
</main>
<script>
{_own("page.js")}</script>
</body>
</html>
"""


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Returns (name, value) pairs of text as a list of HTML."""
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
        + "</dl>"
    )


def commands(lines: Sequence[tuple[str, str]]) -> str:
    """Returns (what it does, command) pairs as HTML."""
    return "".join(
        f'<p>{escape(what)}</p><pre tabindex="0" aria-label="Command">{escape(command)}</pre>'
        for what, command in lines
    )


def _own(name: str) -> str:
    return importlib.resources.files("jaxseg.pages").joinpath(name).read_text(encoding="utf-8")
