"""The reason of a failed save or read: that of the operating system, and a full disk for errors without errno."""

import errno
import os
import shutil

import pytest

from jaxseg.run import orbax_errors

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
    assert orbax_errors.one_line(error) == words
    assert orbax_errors.reason_of_a_failed_save(error, tmp_path, 1) == words


@pytest.mark.parametrize(("free", "size"), [(1000, 1), (50_000_000, 60_000_000)])
def test_a_disk_without_space_is_full_if_the_error_has_no_errno(tmp_path, monkeypatch, free, size):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    reason = orbax_errors.reason_of_a_failed_save
    assert reason(ValueError("write failed"), tmp_path, size) == FULL
    assert reason(caused(OSError(errno.EACCES, "no")), tmp_path, size) == os.strerror(errno.EACCES)
    assert reason(ValueError("write failed"), tmp_path / "nowhere", size) == "write failed"


def test_a_disk_with_space_is_not_full(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=60_000_000))
    assert orbax_errors.reason_of_a_failed_save(ValueError("write failed"), tmp_path, 50_000_000) == "write failed"
