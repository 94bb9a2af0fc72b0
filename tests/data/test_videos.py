"""Frames of one video in two splits, by their names and pictures."""

import re
import time

import numpy as np

from jaxseg.data.near_duplicates import Sketch
from jaxseg.data.videos import _GROUP, about_videos, shared_videos

TRAIN = ["seq1_000120", "seq1_000121", "seq1_000123", "seq2_000001", "seq2_000002", "seq2_000009", "other"]


def pictures(names, scene=lambda name: name, noise=40):
    """A sketch for each name: that of its scene, with noise."""
    scenes, rng, made = {}, np.random.default_rng(0), []
    for name in names:
        own = scenes.setdefault(scene(name), rng.integers(0, 256, (32, 32)))
        made.append(Sketch(0, np.clip(own + rng.normal(0, noise, (32, 32)), 0, 255).astype(np.uint8), False))
    return made


def found(scene=lambda name: name.rpartition("_")[0], **names):
    every = iter(pictures([name for of_split in names.values() for name in of_split], scene))
    return shared_videos(names, {split: [next(every) for _ in of_split] for split, of_split in names.items()})


def test_a_video_in_two_splits_is_named_with_its_frames_and_the_nearest_ones():
    val = ["seq1_000124", "seq1_000900", "seq3_000001", "seq3_000002", "seq3_000003"]
    (video,) = found(train=TRAIN, val=[*val[:1], *val[2:]])
    assert video == ("seq1_*", "val", 1, 3, ("seq1_000124", "seq1_000123"))
    both = found(train=TRAIN, val=[*val[:1], *val[2:], "seq2_000010"], test=["seq2_3", "b/seq2_4"])
    assert [(each.name, each.split, each.frames) for each in both] == [
        ("seq1_*", "val", 1),
        ("seq2_*", "test", 1),
        ("seq2_*", "val", 1),
    ]


def test_every_thirtieth_frame_is_near_and_a_time_stamp_exact():
    start = 10**19  # more than 64 bits hold
    train = [f"{kind}_{start + 30 * i}" for kind in "ab" for i in range(9) if i != 4]
    (video,) = found(train=train, val=[f"a_{start + 120}"])
    assert video.example == (f"a_{start + 120}", f"a_{start + 90}")


def test_names_of_one_kind_and_single_names_are_no_video():
    assert found(train=["0001", "0002", "0003"], val=["0004"]) == []  # a numbering
    assert found(train=["a1b", "3fe2", "77c"], val=["a2b", "9d"]) == []  # as of hashes
    assert found(train=["x/1", "x/2", "x/3"], val=["y/1", "y/2", "y/3"]) == []
    assert shared_videos({}, {}) == [] and found(train=TRAIN) == []


def test_classes_years_and_numbers_far_apart_are_no_video():
    pets = [f"{breed}_{i}" for breed in ("Abyssinian", "pug") for i in range(1, 40)]
    voc = [f"{year}_{number:06d}" for year in (2007, 2008) for number in range(32, 900, 29)]
    cats = [f"{kind}_{i:03d}" for kind in ("cat", "dog") for i in range(1, 40)]
    for names in (pets, voc, cats):
        split = {"train": [name for name in names if hash_of(name)], "val": [n for n in names if not hash_of(n)]}
        assert found(lambda name: name, **split) == []  # each picture shows something else
        assert found(lambda name: "road", **split) == []  # all are alike, as road scenes are
        assert len(found(**split)) == 2  # the control: with frames of scenes they may be videos
    far = ["seq1_009000", "seq1_009001", "seq1_009002"]
    assert found(train=TRAIN, val=far) == []
    assert found(train=TRAIN, val=["seq1_000124", *far]) == []  # most of them are far


def hash_of(name):
    return sum(name.encode()) % 4


def test_many_frames_take_little_time():
    names = [f"{kind}_{i:05d}" for kind in "ab" for i in range(2500)]
    sketch = pictures(["one"])[0]
    start = time.process_time()
    shared_videos({"train": names[::2], "val": names[1::2]}, {s: [sketch] * 2500 for s in ("train", "val")})
    assert time.process_time() - start < 2  # all pairs took 14 s


def test_the_group_has_a_value_for_every_name():
    def group(name):
        match = re.search(_GROUP, name)
        return match and (match[1] or match[0])

    assert [group(name) for name in ("seq1_0012", "x/0012", "a_12_left", "0012", "other", "0012a", "seq1/road")] == [
        "seq1_",
        "x/",
        "a_",
        "0012",
        "other",
        "0012a",
        "seq1/road",
    ]


def test_the_sentence_says_how_many_and_what_to_do():
    names = {"train": TRAIN, "val": ["seq1_000124", "seq2_000003"]}
    every = pictures([*names["train"], *names["val"]], lambda name: name.rpartition("_")[0])
    (said,) = about_videos(names, {"train": every[:7], "val": every[7:]})
    assert said.startswith(
        "2 images of val and images of train have names that differ in a number alone, such as seq1_000124 and "
        "seq1_000123, and look alike: they may be frames of 2 videos (seq1_*, seq2_*)."
    )
    assert f"data.group='{_GROUP}'" in said
