"""The commit that jaxseg runs from. Benchmarks record it too, so this file needs no other package."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import jaxseg


def git_state() -> dict[str, Any] | None:
    """Returns the commit and whether tracked files differ from it; None if jaxseg is not in a repository of its own."""
    package = Path(jaxseg.__file__).parent
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return {"commit": _git(package, "rev-parse", "HEAD"), "changed": bool(_git(package, "status", "-s", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def git_diff(most: int = 100_000) -> dict[str, Any] | None:
    """Returns what tracked files differ in from the commit: digest, size and text; None where nothing differs.

    Args:
        most: characters of the text that are kept; the digest is of the whole.
    """
    state = git_state()
    if state is None or not state["changed"]:
        return None
    try:
        text = _git(Path(jaxseg.__file__).parent, "diff", "HEAD", "--no-color", "--no-ext-diff")
    except (OSError, subprocess.SubprocessError):
        return None
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"digest": digest, "characters": len(text), "text": text[:most]}


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(directory), *arguments], check=True, capture_output=True, timeout=10)
    return done.stdout.decode(errors="replace").strip()
