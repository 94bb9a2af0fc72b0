"""Builds the documentation: `sphinx-build -W --keep-going -b html docs docs/_build/html`."""

import gc
import importlib.metadata
import os
import sys
from pathlib import Path

gc.disable()  # what is read lives to the end, and looking through it again and again takes long
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # reading docstrings needs no accelerator
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]

project = "jaxseg"
version = release = importlib.metadata.version("jaxseg")
copyright = "the jaxseg authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "plain_docstrings", "generated_tables"]
exclude_patterns = ["_build", "extensions", "notebooks"]
html_theme = "furo"
html_title = f"jaxseg {version}"
html_copy_source = False

# Links. A link to a heading that does not exist is a warning, and so is a reference to an unknown name of jaxseg.
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["ref.python"]  # two classes that share the name which a docstring gives alone
nitpicky = True
nitpick_ignore_regex = [
    # Types of Python and of third-party packages, which are shown as text.
    ("py:(class|exc|data|obj)", r"(?!jaxseg\.).*"),
    # Types in signatures that have no page: parts of other objects, type variables, private classes.
    ("py:class", r"jaxseg\.(pretrained\.family|run\.weights_source|losses\.definition)\.\w+"),
    (
        "py:(class|obj)",
        r"jaxseg\.(run\.data\.Problem|run\.lists\.Item|data\.datasets\.Dataset|data\.reading\.Files|arguments\.[PR])",
    ),
    ("py:(class|obj)", r"jaxseg\.inference\.(fitted\.Fit|progress\.Item)"),
    ("py:class", r"jaxseg\.(data\.(classes\.Meaning|survey\.Report)|report\.collecting\.Spool)"),
    ("py:class", r"jaxseg\.sweep\.(plan\.PlannedRun|statistics\.Spread)"),
    ("py:class", r"jaxseg\.[\w.]+\._\w+"),
]

# API pages. Only what has a docstring is shown, in the order of the source.
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_use_type_comments = False  # there are none, and looking for them parses the source of each function again
add_module_names = False
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
