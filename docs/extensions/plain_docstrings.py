"""Lets Sphinx read the docstrings of jaxseg as they are.

They are plain text with Google-like sections: `name` marks code, an indented block after an empty line is code, and
`*`, `|` and a final `_` mean nothing. reStructuredText gives all of these a meaning of its own, so this extension
rewrites each docstring before `sphinx.ext.napoleon` sees it.
"""

import dataclasses
import itertools
import re
from typing import Any

from flax import linen as nn
from sphinx.addnodes import pending_xref, pending_xref_condition
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note)( and \w+)?:\s*$")
_ITEM = re.compile(r"^\w[\w, ]*: ")  # "name: meaning", continued with an indent
_CODE = re.compile(r"(`[^`]+`)")
_SPECIAL = re.compile(r"([\\*|]|_(?!\w))")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects the two hooks, 100 places the first one before napoleon, and the transform."""
    app.add_post_transform(_TypesOfOthers)
    app.connect("autodoc-process-docstring", _rewrite, priority=100)
    app.connect("autodoc-process-signature", _sign)
    return {"parallel_read_safe": True}


def _rewrite(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    # An empty comment first: napoleon takes what stands before a colon in the first line of a property for its type.
    lines[:] = ["..", ""] * (what in ("property", "attribute", "data")) + restructured(lines)


def _sign(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None) -> Any:
    """A Linen module is shown with its own fields alone, without the defaults, which can be whole factories."""
    if what == "class" and isinstance(obj, type) and issubclass(obj, nn.Module):
        own = [field.name for field in dataclasses.fields(obj) if field.init and field.name not in ("parent", "name")]
        return f"({', '.join(own)})", None
    return None


class _TypesOfOthers(SphinxPostTransform):
    """Leaves the types of Python and of third-party packages as text.

    Sphinx looks through all names for each of them, a fifth of the time of a build, to leave them as text too: no name
    of these pages has the same last part.
    """

    default_priority = 5  # before the references are resolved

    def run(self, **_: Any) -> None:
        ours = {name.rpartition(".")[2] for name in self.env.domains.python_domain.objects}
        for node in list(self.document.findall(pending_xref)):
            target = node["reftarget"]
            if node["refdomain"] != "py" or target.startswith("jaxseg.") or target.rpartition(".")[2] in ours:
                continue
            forms = [child for child in node if isinstance(child, pending_xref_condition)]
            plain = next((form.children for form in forms if form["condition"] == "*"), node.children)
            node.replace_self([child.deepcopy() for child in plain])


def restructured(lines: list[str]) -> list[str]:
    """Returns the lines of a docstring of jaxseg as reStructuredText with Google sections."""
    out: list[str] = []
    in_section = False
    for paragraph in _paragraphs(lines):
        first = paragraph[0]
        if not first.startswith(" "):
            in_section = any(_SECTION.match(line) for line in paragraph)
        if in_section:
            out += _inline(paragraph)
        elif _ITEM.match(first) and any(line.startswith(" ") for line in paragraph):
            out += _inline(["  " + line.strip() if line.startswith(" ") else "- " + line for line in paragraph])
        else:
            for indented, group in itertools.groupby(paragraph, key=lambda line: line.startswith("    ")):
                run = list(group)
                out += ["", "::", "", *run, ""] if indented else _inline(run)
        out.append("")
    return out


def _paragraphs(lines: list[str]) -> list[list[str]]:
    """Returns the runs of lines that are not empty."""
    groups = itertools.groupby(lines, key=lambda line: bool(line.strip()))
    return [list(group) for filled, group in groups if filled]


def _inline(lines: list[str]) -> list[str]:
    """Marks `code` as code and escapes what else reStructuredText would interpret."""
    parts = _CODE.split("\n".join(lines))
    marked = (rf"`{part}`\ " if _CODE.fullmatch(part) else _SPECIAL.sub(r"\\\1", part) for part in parts)
    return "".join(marked).split("\n")
