"""Frames of one video in two splits, by their names."""

from jaxseg.data.videos import about_videos, shared_videos

TRAIN = ["seq1_000120", "seq1_000121", "seq1_000123", "seq2_000001", "seq2_000002", "seq2_000009", "other"]


def test_a_video_in_two_splits_is_named_with_its_frames_and_the_nearest_ones():
    val = ["seq1_000124", "seq1_000900", "seq3_000001", "seq3_000002", "seq3_000003"]
    (video,) = shared_videos({"train": TRAIN, "val": val})
    assert video == ("seq1_*", "val", 2, 3, ("seq1_000124", "seq1_000123"))
    both = shared_videos({"train": TRAIN, "val": [*val, "seq2_000010"], "test": ["seq2_3", "b/seq2_4"]})
    assert [(each.name, each.split, each.frames) for each in both] == [
        ("seq1_*", "val", 2),
        ("seq2_*", "test", 1),
        ("seq2_*", "val", 1),
    ]


def test_names_of_one_kind_and_single_names_are_no_video():
    assert shared_videos({"train": ["0001", "0002", "0003"], "val": ["0004"]}) == []  # a numbering
    assert shared_videos({"train": ["a1b", "3fe2", "77c"], "val": ["a2b", "9d"]}) == []  # as of hashes
    assert shared_videos({"train": ["x/1", "x/2", "x/3"], "val": ["y/1", "y/2", "y/3"]}) == []
    assert shared_videos({}) == [] and shared_videos({"train": TRAIN}) == []


def test_the_sentence_says_how_many_and_what_to_do():
    class Named(list):
        def name(self, index):
            return self[index]

    (said,) = about_videos({"train": Named(TRAIN), "val": Named(["seq1_000124", "seq2_000003"])})
    assert said.startswith(
        "2 images of val and images of train have names that differ in a number alone, such as seq1_000124 and "
        "seq1_000123: they are likely frames of 2 videos (seq1_*, seq2_*)."
    )
    assert r"data.group='^(.*?)\d+\D*$'" in said
