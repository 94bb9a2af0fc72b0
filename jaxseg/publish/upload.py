"""Uploads a folder to the Hugging Face Hub, after looking at what the repository holds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg.errors import ConfigError, first_line
from jaxseg.pretrained import hub
from jaxseg.publish.card import CARD_FILE, FILES
from jaxseg.run.published import HUB, MOST_JSON, RECORD_FILE, sha256_of

_OF_THE_HUB = (".gitattributes",)  # what the Hub itself puts into a new repository


def examine(name: str, identity: str, *, replace: bool, api: Any = None) -> list[str]:
    """Returns the files that a former publication put into a repository; [] if there is none.

    Args:
        name: OWNER/NAME.
        identity: of the network that is published.
        replace: whether another network, or files of something else, may be there.
        api: what stands for `huggingface_hub.HfApi()`; None: that.

    Raises:
        ConfigError: if the repository holds something else, or a card that a person has edited, or the Hub cannot be
            asked.
    """
    client = api or hub.client()
    try:
        there = client.list_repo_files(name) if client.repo_exists(name) else []
        record = _record(client.hf_hub_download(name, RECORD_FILE)) if RECORD_FILE in there else {}
        same = "identity" in record and record["identity"] == identity
        look = same and not replace and CARD_FILE in there
        card = Path(client.hf_hub_download(name, CARD_FILE)).read_bytes() if look else None
    except Exception as error:  # of the network, of the server or of the rights: whatever the client raises
        raise _refused(name, error) from error
    # Whoever may write there wrote the record: nothing but files of jaxseg's own names is ever removed.
    listed = record["files"] if "files" in record else []
    former = [file for file in listed if isinstance(file, str) and file in FILES and file in there]
    if card is not None:
        require_own_card(record, card, f"{CARD_FILE} of {HUB}{name}")
    if same:
        return former
    others = [file for file in there if file not in _OF_THE_HUB]
    if others and not replace:
        what = "another published network" if record else f"files of something else, {others[0]} for one"
        raise ConfigError(f"The repository {HUB}{name} holds {what}; give another name, or --replace.")
    return former


def require_own_card(record: Mapping[str, Any], card: bytes, place: str) -> None:
    """Raises ConfigError if a card is not the one that was published with a record: a person has edited it."""
    if "card" not in record or record["card"] != sha256_of(card):
        raise ConfigError(
            f"{place} was changed after it was published; keep a copy and give --replace, which writes it anew, or put "
            "its words into --data, --use and --limits."
        )


def upload(folder: Path, name: str, *, private: bool, removed: tuple[str, ...], api: Any = None) -> None:
    """Makes the repository if there is none, and uploads a folder as one commit.

    Args:
        folder: all of its files are uploaded.
        name: OWNER/NAME.
        private: whether a new repository is private.
        removed: files that the commit removes, of the names in `card.FILES`.
        api: see `examine`.

    Raises:
        ConfigError: if the Hub refuses it.
    """
    client = api or hub.client()
    try:
        client.create_repo(name, private=private, exist_ok=True)
        client.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="Publish a network of jaxseg",
            delete_patterns=list(removed) or None,
        )
    except Exception as error:
        raise _refused(name, error) from error


def _record(path: str) -> dict[str, Any]:
    """Returns what is in the record of a repository; {} for one that jaxseg did not write."""
    file = Path(path)
    try:
        content = json.loads(file.read_bytes()) if file.stat().st_size <= MOST_JSON else None
    except (ValueError, RecursionError):
        return {}
    if isinstance(content, dict) and "files" in content and isinstance(content["files"], list):
        return content
    return {}


def _refused(name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"The Hub did not take {HUB}{name} ({first_line(error)[:300]}). `hf auth login` says who you are, with a token "
        "that may write; `--dry-run` lists the files without it, and a folder in place of hf:// needs no Hub."
    )
