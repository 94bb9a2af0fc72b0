"""The commit that jaxseg runs from. Benchmarks record it too, so this file needs no other package."""

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


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(directory), *arguments], check=True, capture_output=True, timeout=10)
    return done.stdout.decode(errors="replace").strip()
