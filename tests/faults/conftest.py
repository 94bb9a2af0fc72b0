"""The whole run that broken ones are compared with, and the record of what every fault did."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.faults import Starter, bits, command

RECORD = "JAXSEG_RECORD_FAULTS"
"""The environment variable that names the file of results; without it nothing is recorded."""


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    with Starter(tmp_path_factory.mktemp("said")) as made:
        yield made


@pytest.fixture(scope="session")
def whole(starter: Starter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing breaks. It has compiled what the others take from the cache."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    status, said = starter.run(command(workdir))
    assert status == 0, said
    return workdir


@pytest.fixture(scope="session")
def expected(whole: Path) -> dict[str, bytes]:
    """The bits of its end."""
    return bits(whole)


@pytest.fixture
def record() -> Callable[..., None]:
    """Writes a row of the table in docs/faults.md: the fault, how often, what happened, and what was lost."""

    def write(fault: str, times: int, happened: str, lost: str = "nothing", **numbers: Any) -> None:
        if RECORD not in os.environ:
            return
        file = Path(os.environ[RECORD])
        rows = json.loads(file.read_text()) if file.exists() else {}
        rows[fault] = {"times": times, "happened": happened, "lost": lost, **numbers}
        file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")

    return write
