"""Videos of overlays: of the frames of a video, and of images in order."""

import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg import pictures
from jaxseg.errors import ConfigError, DataError
from jaxseg.inference import load, video
from jaxseg.inference.video import FrameWriter
from jaxseg.predict import main

ffmpeg = pytest.importorskip("imageio_ffmpeg")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load(make_run(tmp_path_factory.mktemp("runs") / "a", tiny_config()))


def frames_of(path):
    reader = ffmpeg.read_frames(str(path))
    header = next(reader)
    w, h = header["size"]
    return header["fps"], [np.frombuffer(data, np.uint8).reshape(h, w, 3).astype(int) for data in reader]


def blocks(seed, h=33, w=48):
    """An image of large even blocks, which the codec hardly changes."""
    return np.repeat(np.repeat(np.random.default_rng(seed).integers(0, 255, (3, 3, 3), np.uint8), 16, 0), 16, 1)[:h, :w]


def test_a_video_and_images_give_the_overlays_in_order(run, tmp_path, capsys):
    images = [blocks(seed) for seed in range(5)]
    with FrameWriter(tmp_path / "film.mp4", 10.0) as writer:
        for image in images:
            writer.add(image)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, image in zip(paths, images):
        Image.fromarray(image).save(path)
    paths[2].write_text("no image")
    arguments = ["--workdir", str(run.workdir), str(tmp_path / "film.mp4"), *map(str, paths)]
    for _ in range(2):  # the second time the outputs are there
        assert main([*arguments, "--out", str(tmp_path / "out"), "--video", "20"]) == 1
    assert "5 frames of" in capsys.readouterr().out
    for file, rate, kept in (("film-overlay.mp4", 10, range(5)), ("overlays.mp4", 20, (0, 1, 3, 4))):
        fps, frames = frames_of(tmp_path / "out" / file)
        assert fps == rate and len(frames) == len(kept) and frames[0].shape == (34, 48, 3)  # 33 rows, made even
        for frame, number in zip(frames, kept):
            expected = np.asarray(pictures.overlay(images[number], run.predict(images[number]).classes, run.colors))
            # A codec loses colour at edges; another frame would differ by far more.
            assert np.abs(frame[:33] - expected).mean() < 12
    assert not list((tmp_path / "out").glob(".*"))


def test_a_folder_has_its_videos_too(run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    with FrameWriter(tmp_path / "in" / "film.mp4", 10.0) as writer:
        writer.add(blocks(0))
    Image.fromarray(blocks(1)).save(tmp_path / "in" / "one.png")
    arguments = ["--workdir", str(run.workdir), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert {path.name for path in (tmp_path / "out").glob("*overlay*")} == {"film-overlay.mp4", "one-overlay.png"}
    capsys.readouterr()
    assert main([*arguments, "--format", "npz"]) == 1
    assert "film.mp4 is a video, of which the overlays alone are written; leave out --format" in capsys.readouterr().err


def test_frames_of_several_sizes_make_no_video_and_leave_the_images(run, tmp_path, capsys):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, height in zip(paths, (32, 32, 20)):
        Image.fromarray(blocks(0, h=height)).save(path)
    out = tmp_path / "out"
    assert main(["--workdir", str(run.workdir), *map(str, paths), "--out", str(out), "--video", "5"]) == 0
    said = capsys.readouterr()
    assert (
        "3 of 3 images segmented" in said.out
        and "overlays.mp4 is not written: A frame of the video is 20x48" in said.err
    )
    assert (out / "predictions.csv").is_file() and not list(out.glob("*.mp4")) and not list(out.glob(".*"))


def test_what_is_no_video_is_a_sentence(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "bad.mp4").write_text("no video")
    assert main(["--workdir", str(run.workdir), str(tmp_path / "bad.mp4"), "--out", str(tmp_path / "out")]) == 1
    assert "bad.mp4 cannot be read as a video" in capsys.readouterr().err
    with pytest.raises(DataError, match="is 4x6, the first 6x6"), FrameWriter(tmp_path / "a.mp4", 5.0) as writer:
        writer.add(np.zeros((6, 6, 3), np.uint8))
        writer.add(np.zeros((4, 6, 3), np.uint8))
    assert not (tmp_path / "a.mp4").exists() and not list(tmp_path.glob(".*"))

    (tmp_path / "overlays.mp4").write_text("a film of someone else")
    with pytest.raises(ConfigError, match=r"overlays.mp4 would replace a file that prediction did not write"):
        video.VideoOfFrames(tmp_path / "overlays.mp4", 5.0, [], ())

    def absent():
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(ffmpeg, "get_ffmpeg_exe", absent)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[video\]' brings it"):
        video.require_ffmpeg()
