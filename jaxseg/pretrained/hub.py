"""Fetches published weights from the Hugging Face Hub, into its own cache, and checks that they came whole."""

import re
from pathlib import Path
from typing import Any

from jaxseg.pretrained.catalogue import Published
from jaxseg.pretrained.errors import WeightsError
from jaxseg.pretrained.files import file_sha256


def fetch(published: Published) -> Path:
    """Returns the file in the Hub's cache, fetched where it is not there yet.

    Raises:
        WeightsError: if it cannot be fetched (the message says which file to fetch by hand, and how to give it), the
            repository has no such file, or what came is damaged.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in published.files:
        try:
            path = huggingface_hub.hf_hub_download(published.repository, name, revision=published.revision)
        except LocalEntryNotFoundError as error:
            raise _offline(published, error) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # of the network, of the server, of the disk: whatever its client lets through
            raise _offline(published, error) from error
        _check(Path(path))
        return Path(path)
    raise WeightsError(f"The repository {published.repository} holds none of {', '.join(published.files)}.")


def _check(path: Path) -> None:
    """Compares the file with its digest: the cache names large files by the SHA-256 that the Hub gave for them."""
    expected = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", expected) and file_sha256(path) != expected:
        raise WeightsError(f"{path.resolve()} is damaged: its SHA-256 is not {expected}; remove it to fetch it again.")


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
