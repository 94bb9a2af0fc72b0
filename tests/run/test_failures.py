"""Why a save or a read failed: the reason of the operating system, and a full disk where no error says so."""

import errno
import os
import shutil

import pytest

from jaxseg.run import failures

FULL = os.strerror(errno.ENOSPC)


def caused(cause: BaseException) -> BaseException:
    error = RuntimeError("saving failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "of another wording", "/a/file"), FULL),
        (caused(caused(OSError(errno.EACCES, "no"))), os.strerror(errno.EACCES)),
        (ValueError("First line.\nSecond line."), "First line"),
        (OSError("without a number"), "without a number"),
        (KeyError(), "KeyError"),
        (ValueError("x" * 400), "x" * 300 + "…"),
    ],
)
def test_one_line(error, words, tmp_path):
    assert failures.one_line(error) == words
    assert failures.reason_of_a_failed_save(error, tmp_path) == words


def test_the_disk_is_asked_where_the_error_has_no_number(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert failures.reason_of_a_failed_save(ValueError("write failed"), tmp_path) == FULL
    assert failures.reason_of_a_failed_save(caused(OSError(errno.EACCES, "no")), tmp_path) == os.strerror(errno.EACCES)
    assert failures.reason_of_a_failed_save(ValueError("write failed"), tmp_path / "nowhere") == "write failed"
