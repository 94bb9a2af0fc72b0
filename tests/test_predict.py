"""Prediction: images of every size and kind, names of outputs, and input that cannot be read."""

import functools
import json

import jax
import numpy as np
import pytest
from helpers.tiny_run import make_folder, make_run, tiny_config
from PIL import Image

from jaxseg import build, evaluate, pictures
from jaxseg.data import images
from jaxseg.data.transforms import resize_image
from jaxseg.errors import ConfigError
from jaxseg.inference import load_run, make_segmenter
from jaxseg.inference.images import find_images, name_outputs
from jaxseg.inference.outputs import Outputs
from jaxseg.nn import resize
from jaxseg.pictures.images import DARK
from jaxseg.predict import main
from jaxseg.run.workdir import read_data

EXIF_ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """One run for each way in which images are fitted."""
    root = tmp_path_factory.mktemp("runs")
    return {fit: make_run(root / fit, tiny_config(data__fit=fit)) for fit in ("resize", "crop")}


def picture(h, w, c=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, np.iinfo(dtype).max, (h // 5 + 1, w // 5 + 1, c), dtype=dtype)
    return np.repeat(np.repeat(coarse, 5, 0), 5, 1)[:h, :w]


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path, **options)
    return path


def segment_with(run):
    return functools.partial(make_segmenter(run.parts), run.variables)


def run_predict(workdir, out, *words):
    return main(["--workdir", str(workdir), *map(str, words), "--out", str(out)])


@pytest.mark.parametrize("fit", ["resize", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (33, 47), (16, 16), (70, 24)])
def test_probabilities_are_the_networks_at_the_images_own_size(workdirs, fit, size):
    run = load_run(workdirs[fit])
    image = picture(*size)
    result = segment_with(run)(image, probabilities=True)
    seen = resize_image(image, (16, 16)) if fit == "resize" else image
    logits, _ = run.model.apply(run.variables, run.parts.prepare(seen[None]), train=False)
    expected = jax.nn.softmax(resize(logits, size, method="bilinear"))[0]
    np.testing.assert_allclose(result.probabilities, expected, atol=2e-5)
    assert result.classes.dtype == np.uint8 and result.classes.shape == size
    np.testing.assert_array_equal(result.classes, result.probabilities.argmax(-1))


def test_segmenting_gives_no_probabilities_unasked_and_checks_the_channels(workdirs):
    segment = segment_with(load_run(workdirs["crop"]))
    assert segment(picture(8, 8)).probabilities is None
    with pytest.raises(ValueError, match=r"takes images \[h,w,3\].*\(8, 8, 1\)"):
        segment(picture(8, 8, 1))


@pytest.mark.parametrize(("fit", "compiled"), [("resize", 1), ("crop", 2)])
def test_the_network_is_compiled_once_for_each_size_it_sees(workdirs, monkeypatch, fit, compiled):
    traced, plain = [], build.make_prepare
    monkeypatch.setattr(build, "make_prepare", lambda c: lambda image: traced.append(image.shape) or plain(c)(image))
    segment = segment_with(load_run(workdirs[fit]))
    for size in [(20, 30), (20, 31), (20, 30), (20, 30)]:
        segment(picture(*size), probabilities=True)
    assert len(traced) == compiled


def test_too_large_for_memory_is_a_sentence(workdirs, monkeypatch, tmp_path, capsys):
    def fail(image):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(build, "make_prepare", lambda config: fail)
    with pytest.raises(MemoryError, match="8x9 pixels"):
        segment_with(load_run(workdirs["crop"]))(picture(8, 9))
    assert run_predict(workdirs["crop"], tmp_path / "out", save(tmp_path / "a.png", picture(8, 9))) == 1
    assert "a.png cannot be segmented: an image of 8x9 pixels" in capsys.readouterr().err


def test_an_overlay_without_memory_leaves_the_other_images(workdirs, monkeypatch, tmp_path, capsys):
    paths = [save(tmp_path / "a.png", picture(8, 9)), save(tmp_path / "b.png", picture(9, 9))]
    overlay = pictures.overlay

    def full(image, *arguments, **more):
        if len(image) == 8:
            raise MemoryError
        return overlay(image, *arguments, **more)

    monkeypatch.setattr(pictures, "overlay", full)
    assert run_predict(workdirs["crop"], tmp_path / "out", *paths) == 1
    assert "a.png cannot be segmented: the machine has too little memory for it." in capsys.readouterr().err
    assert (tmp_path / "out" / "b-overlay.png").is_file()


def test_names_as_long_as_the_file_system_allows(workdirs, tmp_path, capsys):
    names = ["x" * 251, "x" * 250 + "y", "ü" * 125, "z"]
    paths = [save(tmp_path / f"{name}.png", picture(8, 9)) for name in names]
    for _ in range(2):  # the second time the outputs are there
        assert run_predict(workdirs["crop"], tmp_path / "out", "--probabilities", *paths) == 0
    said = capsys.readouterr().out
    assert said.count("since its own name is too long.") == 6 and "4 of 4 images segmented" in said
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert (
        len(files - {"predictions.csv"}) == 12 and {"x" * 234 + "-2.npz", "ü" * 117 + "-overlay.png", "z.png"} <= files
    )


def test_an_image_that_memory_does_not_hold_is_named_and_leaves_the_others(workdirs, monkeypatch, tmp_path, capsys):
    paths = [save(tmp_path / name, picture(8, 9)) for name in ("a.png", "b.png")]
    decode = images.from_pillow

    def full(image, channels, path):
        if path == paths[0]:
            raise MemoryError
        return decode(image, channels, path)

    monkeypatch.setattr(images, "from_pillow", full)
    assert run_predict(workdirs["crop"], tmp_path / "out", *paths) == 1
    assert f"error: {paths[0]} does not fit into the memory of this machine." in capsys.readouterr().err
    assert (tmp_path / "out" / "b-overlay.png").is_file()


def test_home_folders_and_names_that_are_no_plain_text(workdirs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(workdirs["crop"])
    for name in ("a.png", "~b.png", "$5_to_$10\udce9.png"):  # the byte e9 alone is no UTF-8
        save(tmp_path / "in" / name, picture(8, 9))
    (tmp_path / "in" / "\x1b[31m.png").write_text("no image")
    assert run_predict("~/run", "~/out", "~/in/a.png", "~/in") == 1
    assert {p.name for p in (tmp_path / "out").glob("*y.png")} == {
        "a-overlay.png",
        "~b-overlay.png",
        "$5_to_$10\udce9-overlay.png",
    }
    assert r"\x1b[31m.png cannot be read as an image" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path / "in")
    assert run_predict("~/run", "out", "~b.png") == 0  # what a shell makes of *b.png
    assert not list(tmp_path.rglob("~"))


@pytest.mark.parametrize("values", [(10, 20, 30), (1, 2, 3000)])
def test_the_values_of_the_masks_are_kept_said_and_written(tmp_path, capsys, values):
    folder = make_folder(tmp_path / "data", [(16, 16), (9, 12)], split="train")
    make_folder(tmp_path / "data", [(16, 16)])
    table = np.full(256, 255, np.uint16)
    table[: len(values)] = values
    for mask in folder.rglob("masks/*.png"):
        Image.fromarray(table[np.asarray(Image.open(mask))]).save(mask)
    classes = [{"index": value, "name": name} for value, name in zip(values, ("sky", "road", "car"))]
    (folder / "classes.json").write_text(json.dumps({"classes": classes}))
    config = tiny_config(data__source="folder", data__dir=str(folder), data__fit="crop")
    workdir, out = make_run(tmp_path / "run", config), tmp_path / "out"
    assert read_data(workdir).values == values
    image = save(tmp_path / "a.png", picture(16, 16))
    assert run_predict(workdir, out, image) == 0
    assert f"1 road ({values[1]} in the masks), 2 car ({values[2]} in the masks); --values masks writes" in (
        capsys.readouterr().out
    )
    with Image.open(out / "a.png") as written:
        indices = np.asarray(written)
    assert run_predict(workdir, out, image, "--values", "masks") == 0
    assert f"the values of the masks: {values[0]} sky, {values[1]} road, " in capsys.readouterr().out
    with Image.open(out / "a.png") as written:
        np.testing.assert_array_equal(np.asarray(written), np.array(values)[indices])
        if max(values) < 256:
            shown = np.array(load_run(workdir).colors)[indices]
            np.testing.assert_array_equal(np.asarray(written.convert("RGB")), shown)
    record = json.loads((workdir / "data.json").read_text())
    del record["values"]
    (workdir / "data.json").write_text(json.dumps(record))  # as an earlier version left it
    assert run_predict(workdir, out, image) == 0
    assert run_predict(workdir, out, image, "--values", "masks") == 1
    assert "did not keep the values of the masks" in capsys.readouterr().err


def test_the_colours_of_the_masks_are_kept_said_and_written(tmp_path, capsys):
    folder = make_folder(tmp_path / "data", [(16, 16), (9, 12)], split="train")
    make_folder(tmp_path / "data", [(16, 16)])
    colors = np.array([(0, 0, 128), (90, 80, 70), (255, 0, 9)], np.uint8)
    for mask in folder.rglob("masks/*.png"):
        values = np.asarray(Image.open(mask))
        Image.fromarray(colors[np.minimum(values, 2)]).save(mask)
    classes = [
        {"index": i, "name": n, "colour": c.tolist()} for i, n, c in zip((10, 20, 30), ("sky", "road", "car"), colors)
    ]
    (folder / "classes.json").write_text(json.dumps({"classes": classes}))
    config = tiny_config(data__source="folder", data__dir=str(folder), data__fit="crop")
    workdir, out = make_run(tmp_path / "run", config), tmp_path / "out"
    image = save(tmp_path / "a.png", picture(16, 16))
    assert run_predict(workdir, out, image) == 0
    said = capsys.readouterr().out
    assert "1 road ((90,80,70) in the masks), 2 car ((255,0,9) in the masks); --values masks writes the colours" in said
    assert "20 in the masks" not in said
    indices = np.asarray(Image.open(out / "a.png"))
    assert run_predict(workdir, out, image, "--values", "masks") == 0
    assert "the colours of the masks: (0,0,128) sky, (90,80,70) road" in capsys.readouterr().out
    with Image.open(out / "a.png") as written:
        assert written.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(written), colors[indices])
    assert run_predict(workdir, out, image) == 0
    record = json.loads((workdir / "data.json").read_text())
    assert record.pop("color_masks") is True
    (workdir / "data.json").write_text(json.dumps(record))  # as an earlier version left it
    assert run_predict(workdir, out, image) == 0 and "1 road (20 in the masks)" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_outputs_above_the_limit_of_pixels_are_replaced_where_it_is_lifted(workdirs, tmp_path, monkeypatch, capsys):
    image = save(tmp_path / "a.png", picture(8, 9))
    monkeypatch.setenv("JAXSEG_MAX_PIXELS", "0")
    assert run_predict(workdirs["crop"], tmp_path / "out", image) == 0
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    assert run_predict(workdirs["crop"], tmp_path / "out", image) == 0
    monkeypatch.delenv("JAXSEG_MAX_PIXELS")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    assert run_predict(workdirs["crop"], tmp_path / "out", image) == 1
    said = capsys.readouterr().err  # of the image itself: that its outputs are larger does not make them foreign
    assert "a.png has more than 60 pixels" in said and "would replace a file" not in said


def test_masks_are_not_replaced_and_outputs_are(workdirs, tmp_path, capsys):
    image, masks = save(tmp_path / "images/a.png", picture(8, 9)), tmp_path / "masks"
    mask = save(masks / "a.png", picture(8, 9, 1))
    before = mask.read_bytes()
    assert run_predict(workdirs["crop"], masks, image) == 1
    assert f"{mask} would replace a file that prediction did not write, such as a mask" in capsys.readouterr().err
    assert mask.read_bytes() == before and len(list(masks.iterdir())) == 1
    mask.unlink()
    assert run_predict(workdirs["crop"], masks, image) == run_predict(workdirs["crop"], masks, image) == 0
    edited = without_marks(mask)
    assert run_predict(workdirs["crop"], masks, image) == 1, "a prediction that another program has changed"
    assert f"{edited} would replace" in capsys.readouterr().err
    without_marks(masks / "a-overlay.png")  # as an earlier version wrote both
    assert run_predict(workdirs["crop"], masks, image) == 0


def without_marks(path):
    with Image.open(path) as written:
        unmarked = written.copy()
    unmarked.info.clear()
    unmarked.save(path)
    return path


@pytest.mark.parametrize("ending", ["-overlay.png", ".npz"])
def test_no_output_replaces_a_file_of_someone_else(workdirs, tmp_path, capsys, ending):
    image, out = save(tmp_path / "a.png", picture(8, 9)), tmp_path / "out"
    out.mkdir()
    foreign = out / f"a{ending}"
    if ending == ".npz":
        np.savez(foreign, measured=np.ones(3))
    else:
        save(foreign, picture(8, 9))
    before = foreign.read_bytes()
    assert run_predict(workdirs["crop"], out, image, "--probabilities") == 1
    assert f"{foreign} would replace a file that prediction did not write" in capsys.readouterr().err
    assert foreign.read_bytes() == before and len(list(out.iterdir())) == 1
    if ending == ".npz":
        assert run_predict(workdirs["crop"], out, image) == 0 and foreign.read_bytes() == before, "not removed either"
    foreign.unlink()
    assert run_predict(workdirs["crop"], out, image, "--probabilities") == 0
    assert run_predict(workdirs["crop"], out, image, "--probabilities") == 0, "its own outputs are replaced"
    capsys.readouterr()
    assert run_predict(workdirs["crop"], out, image, "--average", "flips") == 0
    assert "or of other content of the images: 1 NAME.npz." in capsys.readouterr().out and not (out / "a.npz").exists()
    without_marks(out / "a-overlay.png")
    assert run_predict(workdirs["crop"], out, image) == 0, "as an earlier version wrote it"


def test_a_strange_pair_is_not_taken_for_outputs_of_an_earlier_version(workdirs, tmp_path, capsys):
    image, out = save(tmp_path / "a.png", picture(8, 9)), tmp_path / "out"
    out.mkdir()
    indices = Image.fromarray(picture(8, 9, 1)[..., 0] % 3, "P")
    indices.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    indices.save(out / "a.png")
    save(out / "a-overlay.png", picture(8, 9, seed=1))
    before = {file: file.read_bytes() for file in out.iterdir()}
    assert run_predict(workdirs["crop"], out, image) == 1
    assert "would replace a file that prediction did not write" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (7, 3)])
def test_outputs_of_an_earlier_version_are_recognised_by_their_image(tmp_path, values):
    image, out, colors = picture(8, 9), tmp_path / "out", np.array([(0, 0, 0), (200, 10, 20)], np.uint8)
    path, classes = save(tmp_path / "a.png", image), picture(8, 9, 1, seed=1)[..., 0] % 2
    save(out / "a-overlay.png", pictures.overlay(image, classes, colors))
    palette = np.zeros((max(values) + 1, 3), np.uint8)
    palette[list(values)] = colors
    labels = Image.fromarray(np.array(values, np.uint8)[classes], "P")
    labels.putpalette(palette.tobytes())
    labels.save(out / "a.png")
    outputs = Outputs(out, ("a", "b"), ((0, 0, 0), (200, 10, 20)))
    assert name_outputs([path], outputs) == {path: "a"}
    save(out / "a-overlay.png", pictures.overlay(image, 1 - classes, colors))
    with pytest.raises(ConfigError, match="would replace a file that prediction did not write"):
        name_outputs([path], outputs)


def test_outputs_of_the_command(workdirs, tmp_path, capsys):
    paths = [save(tmp_path / "in" / f"{h}x{w}.png", picture(h, w)) for h, w in ((33, 47), (1, 1), (64, 20))]
    out = tmp_path / "new" / "preds"
    run = load_run(workdirs["resize"])
    assert run_predict(workdirs["resize"], out, *paths, "--probabilities") == 0
    said = capsys.readouterr().out
    assert "3 of 3 images" in said and str(out / "NAME.png") in said and str(out / "NAME.npz") in said
    for path in paths:
        image = np.asarray(Image.open(path))
        expected = segment_with(run)(image, probabilities=True)
        with Image.open(out / path.name) as indices:
            assert indices.mode == "P" and indices.getpalette()[: 3 * len(run.colors)] == list(np.ravel(run.colors))
            np.testing.assert_array_equal(np.asarray(indices), expected.classes)
        overlay = np.asarray(Image.open(out / f"{path.stem}-overlay.png"))
        grey = (image @ np.array([0.299, 0.587, 0.114]))[:, :, None]
        palette = np.array(run.colors)[expected.classes]
        mixed = np.where(palette.max(axis=2, keepdims=True) > DARK, 0.5 * grey + 0.5 * palette, image)
        np.testing.assert_allclose(overlay, mixed, atol=1)
        with np.load(out / f"{path.stem}.npz") as arrays:
            assert tuple(arrays["classes"]) == run.classes
            assert arrays["probabilities"].dtype == np.float32
            np.testing.assert_allclose(arrays["probabilities"].sum(-1), 1, atol=1e-5)
            np.testing.assert_array_equal(arrays["probabilities"].argmax(-1), expected.classes)
    names = {f"{p.stem}{end}" for p in paths for end in (".png", "-overlay.png", ".npz")} | {"predictions.csv"}
    assert {p.name for p in out.iterdir()} == names, "nothing half-written stays"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_kind_of_file_for_every_number_of_channels(tmp_path, channels):
    stats = {"data__mean": (0.5,), "data__std": (0.25,)}
    workdir = make_run(tmp_path / "run", tiny_config(data__channels=channels, **stats))
    folder = tmp_path / "in"
    grey = picture(13, 18, 1)
    save(folder / "grey.png", grey)
    Image.fromarray(grey[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    save(folder / "rgb.jpg", picture(13, 18, 3))
    save(folder / "rgba.png", picture(13, 18, 4))
    save(folder / "la.png", picture(13, 18, 2))
    Image.fromarray(grey[..., 0]).convert("P").save(folder / "palette.PNG")
    assert run_predict(workdir, tmp_path / "out", folder) == 0
    results = {p.stem: np.asarray(Image.open(p)) for p in (tmp_path / "out").glob("*.png")}
    assert len(results) == 12
    assert all(r.shape[:2] == (13, 18) for r in results.values())
    np.testing.assert_array_equal(results["deep"], results["grey"])


def test_exif_rotation_is_applied(workdirs, tmp_path):
    image = picture(12, 20)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    save(tmp_path / "upright.png", np.rot90(image, -1))
    assert run_predict(workdirs["crop"], tmp_path / "out", tmp_path / "turned.png", tmp_path / "upright.png") == 0
    turned, upright = (np.asarray(Image.open(tmp_path / "out" / f"{n}.png")) for n in ("turned", "upright"))
    assert turned.shape == (20, 12)
    np.testing.assert_array_equal(turned, upright)


def test_binary_network(tmp_path):
    data = make_folder(tmp_path / "data", [(16, 16), (9, 21)], classes=2)
    make_folder(data, [(16, 16)], classes=2, split="train")
    config = tiny_config(data__source="folder", data__dir=str(data), model__num_classes=1)
    workdir = make_run(tmp_path / "run", config)
    assert run_predict(workdir, tmp_path / "out", data / "val" / "images", "--probabilities") == 0
    with np.load(tmp_path / "out" / "1.npz") as arrays:
        assert arrays["probabilities"].shape == (9, 21, 1)
        indices = np.asarray(Image.open(tmp_path / "out" / "1.png"))
        np.testing.assert_array_equal(indices, arrays["probabilities"][..., 0] > 0.5)


def test_files_folders_and_globs(tmp_path):
    a, b = save(tmp_path / "x" / "a.png", picture(4, 4)), save(tmp_path / "x" / "b.JPG", picture(4, 4))
    deep = save(tmp_path / "x" / "y" / "c.png", picture(4, 4))
    (tmp_path / "x" / "notes.txt").write_text("not an image")
    strange = save(tmp_path / "x[1].png", picture(4, 4))
    odd = tmp_path / "image.dat"
    odd.write_bytes(a.read_bytes())

    def find(*words):
        return find_images([str(w) for w in words])[:2]

    assert find(tmp_path / "x") == ([a, b], [])
    assert find(b, a, tmp_path / "x", a) == ([b, a], [])
    assert find(tmp_path / "x" / "*") == ([a, b], [])
    assert find(tmp_path / "**" / "*.png") == ([a, deep, strange], [])
    assert find(strange, odd) == ([strange, odd], [])
    paths, problems = find(a, tmp_path / "x" / "q.png", tmp_path / "*.gif", tmp_path / "x" / "y" / ".." / "z", odd)
    assert paths == [a, odd] and len(problems) == 3
    (tmp_path / "x" / "a.pgw").write_text("1\n0\n0\n1\n0\n0\n")
    (tmp_path / "x" / "b.GIF").write_text("")
    left_out = find_images([str(tmp_path / "x")]).left_out
    assert left_out == (f"2 files of other types (.gif, .txt) in {tmp_path / 'x'} left out.",)
    assert find_images([str(tmp_path / "x" / "y")], recursive=True).left_out == ()
    (tmp_path / "empty").mkdir()
    assert ".webp, .mp4, " in find(tmp_path / "empty")[1][0]
    assert find(tmp_path / "empty")[1][0].endswith("directly in it; --recursive enters its sub-folders.")
    assert "Did you mean" in find(tmp_path / "x" / "aa.png")[1][0]


def test_names_never_collide(tmp_path):
    paths = [tmp_path / n for n in ("a.png", "a.jpg", "b/A.png", "a-2.png", "a-overlay.png", "c.png")]
    names = name_outputs(paths, Outputs(tmp_path / "out", ("a",), ((0, 0, 0),)))
    assert names[paths[0]] == "a" and names[paths[1]] == "a-2" and names[paths[5]] == "c"
    files = [f"{name}{end}".lower() for name in names.values() for end in (".png", "-overlay.png", ".npz")]
    assert len(set(files)) == len(files) == 18


def test_an_image_is_never_overwritten(workdirs, tmp_path, capsys):
    image = save(tmp_path / "a.png", picture(6, 6))
    before = image.read_bytes()
    assert run_predict(workdirs["crop"], tmp_path, image) == 1
    assert "would replace an image" in capsys.readouterr().err
    assert image.read_bytes() == before
    assert run_predict(workdirs["crop"], tmp_path, save(tmp_path / "b.jpg", picture(6, 6))) == 0
    with pytest.raises(ConfigError, match="another --out"):
        name_outputs([tmp_path / "b.jpg", tmp_path / "b-overlay.png"], Outputs(tmp_path, ("a",), ((0, 0, 0),)))


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(workdirs, tmp_path, capsys):
    good = save(tmp_path / "good.png", picture(30, 30))
    cut = tmp_path / "cut.png"
    cut.write_bytes(save(tmp_path / "whole.png", picture(64, 64)).read_bytes()[:120])
    text = tmp_path / "text.jpg"
    text.write_text("hello")
    missing = tmp_path / "missing.png"
    out = tmp_path / "out"
    assert run_predict(workdirs["resize"], out, cut, missing, text, good) == 1
    said = capsys.readouterr()
    assert all(str(path) in said.err for path in (cut, text, missing)) and str(good) not in said.err
    assert said.err.count("error: ") == 3
    assert "1 of 3 images" in said.out
    assert {p.name for p in out.iterdir()} == {"good.png", "good-overlay.png", "predictions.csv"}
    cut.rename(good)
    assert run_predict(workdirs["resize"], out, good) == 1
    assert f"The files of 1 of 1 failed image in {out} are those of an earlier call." in capsys.readouterr().out


def test_nothing_to_do_and_nowhere_to_write(workdirs, tmp_path, capsys):
    assert run_predict(workdirs["crop"], tmp_path / "out", tmp_path / "no.png") == 1
    assert not (tmp_path / "out").exists()
    image = save(tmp_path / "a.png", picture(6, 6))
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "preds"):
        for words in ([image], ["--samples", "1"]):
            assert run_predict(workdirs["crop"], out, *words) == 1
            said = capsys.readouterr()
            assert f"--out {out}: {tmp_path / 'file'} is a file, where a folder for the outputs is needed" in said.err
            assert "predict:" not in said.err, "before any work"
    (tmp_path / "same").symlink_to(workdirs["crop"])
    for command in (main, evaluate.main):
        images = [str(image)] if command is main else []
        assert command(["--workdir", str(workdirs["crop"]), str(tmp_path / "same"), *images]) == 1
        assert f"The run in {tmp_path / 'same'} is given a second time as" in capsys.readouterr().err
    assert run_predict(tmp_path / "nowhere", tmp_path / "out", image) == 1
    assert "nowhere" in capsys.readouterr().err
