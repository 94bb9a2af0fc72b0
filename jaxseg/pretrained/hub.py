"""Fetches published weights from the Hugging Face Hub, into its own cache, and checks that they came whole."""

import hashlib
import re
from pathlib import Path
from typing import Any

from jaxseg.errors import WeightsError
from jaxseg.pretrained.catalogue import Published
from jaxseg.pretrained.files import file_sha256

# Seconds that the Hub is waited for, the first time and the second, before it counts as out of reach.
_PATIENCE = (10, 30)
_COMMIT = "[0-9a-f]{40}"


def fetch(published: Published) -> Path:
    """Returns the file in the Hub's cache, fetched where it is not there yet.

    The Hub's client, before it gives up a Hub that is out of reach, tries again for half a minute and writes of every
    try. So it is only asked to fetch once the Hub has answered, and else to look into its cache.

    Raises:
        WeightsError: if it cannot be fetched (the message says which file to fetch by hand, and how to give it), the
            repository has no such file or revision, or what came is damaged.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    pinned = published.revision is not None and re.fullmatch(_COMMIT, published.revision) is not None
    try:
        path = _look(published, local_files_only=True) if pinned else None
        if path is None:
            error = _unreachable(published)
            path = _look(published, local_files_only=error is not None)
            if path is None and error is not None:
                raise error
    except RevisionNotFoundError as error:
        raise WeightsError(f"The repository {published.repository} has no revision {published.revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise WeightsError(f"There is no repository {published.repository} on the Hub, or it is private.") from error
    except Exception as error:  # of the network, of the server, of the disk: whatever its client lets through
        raise _offline(published, error) from error
    if path is None:
        raise WeightsError(f"The repository {published.repository} holds none of {', '.join(published.files)}.")
    _check(path)
    return path


def commit(path: Path) -> str | None:
    """Returns the commit whose snapshot a file of the Hub's cache belongs to."""
    match = re.search(f"/snapshots/({_COMMIT})/", path.as_posix())
    return None if match is None else match[1]


def digest(path: Path) -> str | None:
    """Returns the digest that names a file of the Hub's cache: in 64 digits its SHA-256, in 40 its SHA-1 as git has it.

    None where the cache keeps files under their own names alone (it does so on systems without links).
    """
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}|[0-9a-f]{40}", name) else None


def _look(published: Published, *, local_files_only: bool) -> Path | None:
    """Returns the first of the files that the repository, or the cache alone, holds; None where it holds none."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in published.files:
        try:
            return Path(
                huggingface_hub.hf_hub_download(
                    published.repository, name, revision=published.revision, local_files_only=local_files_only
                )
            )
        except LocalEntryNotFoundError:
            if not local_files_only:  # lost on the way
                raise
        except EntryNotFoundError:
            continue
    return None


def _unreachable(published: Published) -> Exception | None:
    """Returns why the Hub does not answer, or None where it does, be it with an error or slowly."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    address = huggingface_hub.hf_hub_url(published.repository, published.files[0], revision=published.revision)
    found = None
    for seconds in _PATIENCE:
        try:
            huggingface_hub.get_hf_file_metadata(address, timeout=seconds)
        except HfHubHTTPError:
            return None
        except Exception as error:  # its client has been built upon several libraries, each with errors of its own
            if type(error).__name__ == "ReadTimeout":  # connected
                return None
            found = error
        else:
            return None
    return found


def _check(path: Path) -> None:
    """Compares the file with its digest: the SHA-256 that the Hub gave for it, or for a small one git's SHA-1."""
    expected = digest(path)
    if expected is None:
        return
    kind, found = ("SHA-256", file_sha256(path)) if len(expected) == 64 else ("git SHA-1", _git_sha1(path))
    if found != expected:
        raise WeightsError(f"{path.resolve()} is damaged: its {kind} is not {expected}; remove it to fetch it again.")


def _git_sha1(path: Path) -> str:
    with path.open("rb") as file:
        start = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        return hashlib.file_digest(file, lambda: start).hexdigest()


def _offline(published: Published, error: BaseException) -> WeightsError:
    address = f"https://huggingface.co/{published.repository}/resolve/{published.revision or 'main'}"
    why = (str(error).strip() or type(error).__name__).partition("\n")[0].rstrip(".")
    return WeightsError(
        f"{published.repository} is not in the cache {_cache()} and could not be fetched ({why}). Fetch "
        f"{' or '.join(f'{address}/{name}' for name in published.files)} on another machine, and give the path of that "
        "file in place of the name; or copy the cache folder of a machine that has it."
    )


def _cache() -> Any:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE
