"""Fetches published weights from the Hugging Face Hub into its cache, and checks their digests."""

import dataclasses
import hashlib
import re
import urllib.parse
from pathlib import Path
from typing import Any

from jaxseg.errors import WeightsError, first_line
from jaxseg.pretrained import shards
from jaxseg.pretrained.family import HUB_FILES, SHARD_LISTS, Published
from jaxseg.pretrained.files import file_sha256

# Seconds to wait for an answer of the Hub, in the first attempt and in the second.
_TIMEOUTS = (10, 30)
_COMMIT = "[0-9a-f]{40}"
_WHO = "`hf auth login` or the environment variable HF_TOKEN says who you are"


def fetch(published: Published, *, most: int | None = None) -> Path:
    """Returns the file in the Hub's cache, which is fetched first if it is missing.

    Without a network the Hub's client retries for half a minute and logs every attempt. So this function asks the
    client to fetch only after the Hub has answered, and otherwise looks into the cache.

    Args:
        published: the repository and the names of the file. Where it has a list of several files in place of the
            weights, these are fetched too, and the list is returned.
        most: bytes that the file may have, which the Hub is asked before it is fetched; None: any number.

    Raises:
        WeightsError: if the file cannot be fetched (the message says which file to fetch by hand, and how to give it),
            the repository has no such file or revision, or the file is damaged or larger than `most`.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if str(_cache()).startswith("~"):  # the client would make a folder of the name ~
        raise WeightsError(
            f"{published.repository} cannot be kept: this user has no home folder; set the environment variable "
            "HF_HOME to a folder for files of the Hub."
        )
    pinned = published.revision is not None and re.fullmatch(_COMMIT, published.revision) is not None
    try:
        path = _locate(published, local_files_only=True) if pinned else None
        if path is None:
            error = _unreachable(published)
            path = _locate(published, local_files_only=error is not None, most=most)
            if path is None and published.files == HUB_FILES and most is None:
                path = _locate(dataclasses.replace(published, files=SHARD_LISTS), local_files_only=error is not None)
            if path is None and error is not None:
                raise error
    except WeightsError:
        raise
    except RevisionNotFoundError:
        raise WeightsError(f"The repository {published.repository} has no revision {published.revision!r}.") from None
    except GatedRepoError:  # one of the next, which the Hub also answers to those who may not see a repository
        raise WeightsError(
            f"The repository {published.repository} is gated: it is for those whom its owner has given access. Ask for "
            f"it at {_endpoint()}/{published.repository}; {_WHO}. Or give a file of weights that you have."
        ) from None
    except RepositoryNotFoundError:
        raise WeightsError(
            f"There is no repository {published.repository} on the Hub, or it is private. For a private one, {_WHO}."
        ) from None
    except Exception as error:  # of the network, of the server or of the disk: whatever the client raises
        # The client's own errors, dozens of lines of connections that failed, would hide the sentence.
        raise _offline(published, error) from None
    if path is None:
        raise WeightsError(f"The repository {published.repository} holds none of {', '.join(published.files)}.")
    if most is not None:
        _require_at_most(most, path.stat().st_size, published, path.name)
    _check(path)
    if path.name.endswith(shards.SUFFIX):
        _fetch_shards(published, path)
    return path


def _fetch_shards(published: Published, path: Path) -> None:
    """Fetches the files that the list `path` names, of the commit that the list is of, into its folder of the cache."""
    for name in shards.listed(path):
        if not (path.parent / name).is_file():
            fetch(dataclasses.replace(published, files=(name,), revision=commit(path) or published.revision))
        else:
            _check(path.parent / name)


def commit(path: Path) -> str | None:
    """Returns the commit whose snapshot in the Hub's cache holds a file; None outside a snapshot."""
    match = re.search(f"/snapshots/({_COMMIT})/", path.as_posix())
    return None if match is None else match[1]


def digest(path: Path) -> str | None:
    """Returns the digest that names a file in the Hub's cache: 64 digits are its SHA-256, 40 are git's SHA-1 of it.

    None if the cache keeps files only under their own names (as on systems without links).
    """
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}|[0-9a-f]{40}", name) else None


def client() -> Any:
    """Returns huggingface_hub's client, which writes to repositories as the user who is logged in."""
    import huggingface_hub

    return huggingface_hub.HfApi()


def _locate(published: Published, *, local_files_only: bool, most: int | None = None) -> Path | None:
    """Returns the first of the files that exists in the repository, or only in the cache; None if none does."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in published.files:
        try:
            if most is not None and not local_files_only:
                address = huggingface_hub.hf_hub_url(published.repository, name, revision=published.revision)
                _require_at_most(most, huggingface_hub.get_hf_file_metadata(address).size, published, name)
            return Path(
                huggingface_hub.hf_hub_download(
                    published.repository, name, revision=published.revision, local_files_only=local_files_only
                )
            )
        except LocalEntryNotFoundError:
            if not local_files_only:  # the connection broke
                raise
        except EntryNotFoundError:
            continue
    return None


def _require_at_most(most: int, size: int | None, published: Published, name: str) -> None:
    """Raises WeightsError for a file of more than `most` bytes, or of a size that the Hub does not say."""
    if size is None or size > most:
        says = "a size that the Hub does not say" if size is None else f"{size:,} bytes"
        raise WeightsError(f"The file {name} of {published.repository} has {says}; {most:,} are the most it can need.")


def _unreachable(published: Published) -> Exception | None:
    """Returns why the Hub does not answer; None if it answers, even with an error or slowly."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    address = huggingface_hub.hf_hub_url(published.repository, published.files[0], revision=published.revision)
    found = None
    for seconds in _TIMEOUTS:
        try:
            huggingface_hub.get_hf_file_metadata(address, timeout=seconds)
        except HfHubHTTPError:
            return None
        except Exception as error:  # versions of the client use different libraries, each with its own errors
            if type(error).__name__ == "ReadTimeout":  # connected
                return None
            found = error
        else:
            return None
    return found


def _check(path: Path) -> None:
    """Compares the file with its digest: the SHA-256 that the Hub gave for it, or git's SHA-1 for a small file."""
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
    revision = urllib.parse.quote(published.revision or "main", safe="")  # that of a branch may have slashes
    address = f"{_endpoint()}/{published.repository}/resolve/{revision}"
    return WeightsError(
        f"{published.repository} is not in the cache {_cache()} and could not be fetched ({first_line(error)}). Fetch "
        f"{' or '.join(f'{address}/{name}' for name in published.files)} on another machine, and give the path of that "
        "file in place of the name; or copy the cache folder of a machine that has it."
    )


def _endpoint() -> str:
    """Returns the address of the Hub, or of the mirror that HF_ENDPOINT names."""
    from huggingface_hub import constants

    return constants.ENDPOINT.rstrip("/")


def _cache() -> Any:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE
