"""Amounts of memory, the search for the largest that fits, and what is free in control groups."""

import pytest

from jaxseg import memory
from jaxseg.errors import ArgumentError


@pytest.mark.parametrize(
    ("text", "amount"),
    [("6GB", 6_000_000_000), ("500 MiB", 500 * 2**20), ("1.5kB", 1500), ("2GiB", 2**31), ("0.25 MB", 250_000)],
)
def test_amounts(text, amount):
    assert memory.parse_amount(text) == amount
    assert memory.room_of(text) == memory.Room(amount, amount, "are what compile.memory gives")


@pytest.mark.parametrize("text", ["6", "GB", "-1GB", "6 apples", "1e3MB", "off"])
def test_other_texts_are_no_amounts(text):
    with pytest.raises(ArgumentError, match=f"An amount of memory must be an amount such as 6GB.*got '{text}'"):
        memory.parse_amount(text)


def test_amounts_in_words():
    assert [memory.shown(n) for n in (0, 999, 1500, 27_345_678, 1.5e9, 123.4e9)] == [
        *("0 bytes", "999 bytes", "1.5 kB", "27.3 MB", "1.5 GB", "123 GB"),
    ]


def test_the_room_is_what_is_free_now():
    room = memory.room_of("")
    assert room and 0 < room.planned < room.free and room.words.endswith(" are free")
    assert memory.room_of("off") is None


@pytest.mark.parametrize(
    ("bytes_of", "most_calls"),
    [
        (lambda n: 1000 + 37 * n, 2),  # a line: where it meets the room, and the next
        (lambda n: 1000 + 37 * n + 500 * (n > 100), 12),  # a step
        (lambda n: 1000 + n * n // 2, 12),
        (lambda n: 1000 + 128 * (n // 16), 14),  # stairs
    ],
)
@pytest.mark.parametrize("room", [1037, 4321, 9000])
def test_the_largest_count_is_found_in_few_calls(bytes_of, most_calls, room):
    calls = []

    def counted(n):
        calls.append(n)
        return bytes_of(n)

    expected = max((n for n in range(1, 1001) if bytes_of(n) <= room), default=0)
    found = memory.largest(counted, room, {0: 1000, 32: bytes_of(32)}, most=1000)
    assert found == expected and len(calls) <= most_calls and len(set(calls)) == len(calls)


def test_nothing_fits_and_everything_fits():
    assert memory.largest(lambda n: 100 + n, 100, {0: 100, 8: 108}) == 0
    assert memory.largest(lambda n: 100 + n, 10_000, {0: 100, 8: 108}, most=64) == 64


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_control_groups_of_version_2_up_to_the_root(tmp_path):
    own, root = tmp_path / "own", tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    stat = "anon 7\nactive_file 100\ninactive_file 20\n"
    group(root / "a" / "b", memory__max="max\n", memory__current="600\n", memory__stat=stat)
    group(root / "a", memory__max="1000\n", memory__current="700\n", memory__stat=stat)
    assert memory._left_in_groups(root, own) == [1000 - (700 - 120)]


def test_control_groups_of_version_1(tmp_path):
    own, root = tmp_path / "own", tmp_path / "cgroup"
    own.write_text("5:devices:/x\n4:cpu,memory:/a\n")
    files = {"memory__limit_in_bytes": "1000\n", "memory__usage_in_bytes": "900\n"}
    group(root / "memory" / "a", **files, memory__stat="total_active_file 50\ntotal_inactive_file 5\n")
    assert memory._left_in_groups(root, own) == [155]
    assert memory._left_in_groups(root, tmp_path / "none") == []
