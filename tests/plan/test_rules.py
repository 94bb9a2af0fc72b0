"""The rules of a plan, each as a table of fingerprints and choices."""

from dataclasses import replace

import numpy as np
import pytest

from jaxseg.data.sampling import area_order
from jaxseg.plan import rules
from jaxseg.plan.fingerprint import ClassFacts, Fingerprint
from jaxseg.plan.planning import draft, notes_of
from jaxseg.plan.rules import Choice, Guess, Machine

CPU, GPU = Machine("cpu"), Machine("gpu", 2)


def thing(name="dog", share=0.2, objects=100, typical=40.0, wide=60.0, below=0.0):
    return ClassFacts(name, share, 50, objects, (typical / 2, typical, wide), typical, 0.5, 0.1, below)


GROUND = thing("ground", 0.8, 90, 300.0, 400.0)
DATA = Fingerprint(
    images={"train": 100, "val": 20},
    sizes=((200, 200, 100),),
    num_sizes=1,
    area=100 * 200 * 200,
    middle=(200, 200),
    largest=(200, 200),
    aspects=(1.0, 1.0),
    channels=3,
    bits=8,
    brightest=1.0,
    mean=(0.4, 0.5, 0.45),
    std=(0.2, 0.2, 0.2),
    coloured=1.0,
    ignored=0.0,
    up_down=0.3,
    left_right=0.02,
    located=0.0,
    resolutions=(),
    classes=(GROUND, thing()),
    near_duplicates={"train": 0, "val": 0},
    leaks=(),
    num_leaks=0,
)


def of_size(height, width, *, sizes=1, aspects=None, **changes):
    aspects = aspects or (round(width / height, 3),) * 2
    return replace(DATA, num_sizes=sizes, middle=(height, width), largest=(height, width), aspects=aspects, **changes)


def resized(height, width):
    return {"data.fit": "resize", "data.size": (height, width)}


def patches(side):
    return {"data.fit": "crop", "data.size": (side, side)}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (DATA, "photo"),
        (replace(DATA, up_down=0.01), "aerial"),
        # Triangles that point up, or down: an up, though each part of the image has as many; a few say nothing.
        (replace(DATA, up_down=0.01, classes=(GROUND, thing(below=0.07))), "photo"),
        (replace(DATA, up_down=0.01, classes=(GROUND, thing(), thing("cone", below=-0.07))), "photo"),
        (replace(DATA, up_down=0.01, classes=(GROUND, thing(below=0.02))), "aerial"),
        (replace(DATA, up_down=0.01, classes=(GROUND, thing(below=0.07, objects=9))), "aerial"),
        (replace(DATA, located=0.5), "aerial"),
        (replace(DATA, up_down=0.01, num_sizes=2), "photo"),
        (replace(DATA, coloured=0.1, classes=(GROUND, thing(objects=900))), "microscopy"),
        (replace(DATA, coloured=0.1), "medical"),
        (replace(DATA, coloured=0.0, mean=(0.9,), classes=(GROUND, thing(objects=4000))), "text"),
        (replace(DATA, coloured=0.0, mean=(0.9,), classes=(GROUND, thing(objects=900))), "microscopy"),
    ],
)
def test_what_the_images_are(data, kind):
    assert rules.guess_kind(data).kind == kind


@pytest.mark.parametrize(
    ("data", "machine", "keys"),
    [
        (DATA, CPU, resized(200, 200)),
        (of_size(180, 240), CPU, resized(180, 240)),
        # Small images of one aspect, but of several sizes.
        (of_size(100, 150, sizes=3), CPU, resized(96, 144)),
        # Large photos of large objects are shrunk, and keep their aspect.
        (of_size(800, 1200, classes=(GROUND, thing(typical=200.0))), CPU, resized(208, 312)),
        (of_size(2000, 3000, classes=(GROUND, thing(typical=80.0))), GPU, resized(624, 936)),
        # In which small objects would vanish: patches, about three objects wide, within what the machine can do.
        (of_size(2000, 3000, classes=(GROUND, thing(typical=20.0, wide=50.0))), CPU, patches(160)),
        (of_size(2000, 3000, classes=(GROUND, thing(typical=20.0, wide=50.0))), GPU, patches(256)),
        (of_size(2000, 3000, classes=(GROUND, thing(typical=50.0, wide=300.0))), CPU, patches(192)),
        # Several aspects are never squeezed into one.
        (of_size(480, 640, sizes=9, aspects=(0.75, 1.333)), CPU, patches(192)),
        # A patch is no larger than the images.
        (of_size(60, 90, sizes=4, aspects=(0.8, 1.5)), CPU, patches(96)),
    ],
)
def test_how_images_get_to_one_size(data, machine, keys):
    choice = rules.choose_fit(data, machine)
    assert choice.keys == keys
    if keys["data.fit"] == "resize":
        (height, width), (tall, wide) = keys["data.size"], data.largest
        assert abs(width * tall / (height * wide) - 1) < 0.03  # the aspect


def test_large_photos_are_never_squeezed_into_a_square():
    for objects in (5.0, 50.0, 500.0):
        for machine in (CPU, GPU):
            data = of_size(2000, 3000, classes=(GROUND, thing(typical=objects, wide=2 * objects)))
            keys = rules.choose_fit(data, machine).keys
            assert keys["data.fit"] == "crop" or keys["data.size"][0] < keys["data.size"][1]


SEVERAL = replace(DATA, sizes=((200, 200, 99), (800, 1000, 1)), num_sizes=2, area=4_760_000, largest=(800, 1000))


def test_patches_come_from_images_by_their_area():
    [choice] = rules.choose_sampling(SEVERAL, "crop", (100, 100))
    assert choice.keys == {"data.sampling": "area"}
    order = area_order([size[:2] for size in SEVERAL.sizes for _ in range(size[2])], (100, 100))
    assert np.bincount(order.images)[[0, 99]].tolist() == [4, 80]
    assert "800x1000 has 80 patches in a pass, one of 200x200 has 4; together about 476." in choice.reason
    assert len(order.images) == 476
    [small] = rules.choose_sampling(SEVERAL, "crop", (900, 900))
    assert "together about 100." in small.reason  # a patch each
    assert rules.choose_sampling(SEVERAL, "resize", (100, 100)) == rules.choose_sampling(DATA, "crop", (100, 100)) == ()


def test_whole_images_on_request_have_no_patches():
    images = of_size(500, 700, sizes=3, aspects=(0.7, 1.4))
    kept, asked = (
        draft(images, CPU, Guess("photo", "as given"), "DIR", given) for given in ({}, {"data.fit": "resize"})
    )
    assert kept.config().data.sampling == "area" and asked.config().data.sampling == "epochs"


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (DATA, {"data.channels": 3}),
        (
            replace(DATA, channels=1, mean=(0.3,), std=(0.0,)),
            {"data.channels": 1, "data.mean": (0.3,), "data.std": (0.001,)},
        ),
        (replace(DATA, brightest=0.06, bits=16), {"data.channels": 3, "data.mean": DATA.mean, "data.std": DATA.std}),
    ],
)
def test_the_values_of_images(data, keys):
    assert rules.choose_values(data).keys == keys


@pytest.mark.parametrize(
    ("images", "machine", "size", "widths"),
    [
        (100, CPU, (64, 64), (16, 32, 64, 128)),
        (100, CPU, (128, 128), (16, 32, 64, 128, 256)),
        (9000, CPU, (180, 240), (16, 32, 64, 128, 256)),
        (20, GPU, (256, 256), (16, 32, 64, 128, 256)),
        (100, GPU, (256, 256), (32, 64, 128, 256, 512)),
        (9000, GPU, (256, 256), (64, 128, 256, 512, 1024)),
        (100, CPU, (8, 8), (16, 32, 64)),
    ],
)
def test_the_network(images, machine, size, widths):
    choice = rules.choose_network(replace(DATA, images={"train": images}), machine, size)
    assert choice.keys == {"model.name": "unet", "model.args": {"widths": widths}}


@pytest.mark.parametrize(
    ("machine", "size", "batch"),
    [(CPU, (64, 64), 8), (CPU, (128, 128), 8), (CPU, (180, 240), 4), (GPU, (256, 256), 64), (GPU, (512, 512), 32)],
)
def test_the_batch(machine, size, batch):
    assert rules.choose_batch(machine, size).keys == {"batch_size": batch}


@pytest.mark.parametrize(
    ("classes", "weights"),
    [
        ((GROUND, thing()), None),
        ((GROUND, thing(share=0.001)), None),  # of two classes Dice is enough
        ((GROUND, thing(), thing("cat", 0.02)), None),
        ((GROUND, thing(), thing("cat", 0.002)), "effective_number"),
        ((GROUND, thing(), thing("cat", 0.0)), None),  # a class that never occurs weighs nothing
    ],
)
def test_the_loss(classes, weights):
    keys = {"loss.terms": "cross_entropy + dice"} | ({"loss.class_weights": weights} if weights else {})
    assert rules.choose_loss(replace(DATA, classes=classes)).keys == keys


WHOLE = Choice({"data.fit": "resize", "data.size": (200, 200)}, "")
PATCHES = Choice({"data.fit": "crop", "data.size": (128, 128)}, "")
COLOURS = {"augment.brightness": 0.2, "augment.contrast": 0.2, "augment.saturation": 0.2}


@pytest.mark.parametrize(
    ("kind", "fit", "changes", "flips", "geometry"),
    [
        ("photo", WHOLE, {}, (0.5, None), {"augment.zoom": (0.75, 1.5), "augment.rotate": 5.0}),
        ("aerial", PATCHES, {}, (0.5, 0.5), {"augment.zoom": (0.8, 1.25), "augment.rotate": 15.0}),
        ("microscopy", PATCHES, {}, (0.5, 0.5), {"augment.zoom": (0.7, 1.4), "augment.rotate": 15.0}),
        ("medical", WHOLE, {}, (0.5, None), {"augment.zoom": (0.8, 1.25), "augment.rotate": 5.0}),
        ("medical", WHOLE, {"left_right": 0.4}, (0.0, None), {"augment.zoom": (0.8, 1.25), "augment.rotate": 5.0}),
        ("text", PATCHES, {}, (0.0, None), {}),
    ],
)
def test_the_augmentation(kind, fit, changes, flips, geometry):
    data = replace(DATA, **changes)
    choice = rules.choose_augmentation(data, Guess(kind, "as given"), 40, fit)
    expected = {"augment.flip_horizontal": flips[0]} | ({} if flips[1] is None else {"augment.flip_vertical": flips[1]})
    assert choice.keys == {**expected, **geometry, **COLOURS}
    # Images that are seldom seen twice are mirrored alone.
    assert rules.choose_augmentation(data, Guess(kind, "as given"), 2, fit).keys == expected


@pytest.mark.parametrize(("images", "passes"), [(10, 40), (500, 40), (2000, 20), (50_000, 4)])
def test_passes_fall_with_the_number_of_images(images, passes):
    assert rules.passes_of(images) == pytest.approx(passes)


def test_the_length():
    keys = rules.choose_steps(539, 8, 16).keys
    assert keys["steps"] == 2600 and keys["eval.every"] == keys["checkpoint.every"] == 520
    assert keys["schedule.warmup"] == 173 and keys["optimizer.learning_rate"] == 3e-3
    assert rules.choose_steps(10, 8, 32).keys["steps"] == 600
    assert rules.choose_steps(37, 4, 16).reason == "600 steps, 65 passes over 37 images: at least 600 steps."
    assert rules.choose_steps(500, 8, 16).reason == "2500 steps, 40 passes over 500 images."
    assert rules.choose_steps(10, 8, 32).keys["optimizer.learning_rate"] == 1e-3


def test_a_length_in_minutes():
    """Of 20 minutes 0.92 are planned: 1104 s, 30 s of compilation, five evaluations of 20 s, and steps of 0.65 s."""
    assert rules.steps_in(20, 0.65, 30, 20, 16).keys["steps"] == 1400  # 974 s / 0.65 s are 1498, in two digits
    assert rules.steps_in(0.01, 5.0, 30, 20, 16).keys["steps"] == 20


def test_evaluation():
    assert rules.choose_evaluation(DATA, CPU, WHOLE).keys == {"eval.batch_size": 8}
    large = of_size(2000, 3000)
    tiles = {"eval.batch_size": 16, "eval.tiles": "512x512", "eval.overlap": 0.25}
    assert rules.choose_evaluation(large, GPU, PATCHES).keys == tiles
    assert rules.choose_evaluation(large, CPU, PATCHES).keys["eval.tiles"] == "256x256"
    assert rules.choose_evaluation(of_size(150, 150), CPU, PATCHES).keys["eval.tiles"] == "160x160"


def test_the_time_of_an_evaluation():
    assert rules.steps_of_evaluation(DATA, WHOLE, 8, (200, 200)) == pytest.approx(0.4 * 20 / 8)
    assert rules.steps_of_evaluation(DATA, PATCHES, 8, (100, 100)) == pytest.approx(0.4 * 20 / 8 * 4 * 1.8)


@pytest.mark.parametrize("kind", ["photo", "aerial", "microscopy", "medical", "text"])
@pytest.mark.parametrize("machine", [CPU, Machine("gpu", 1), Machine("tpu", 4)])
def test_every_draft_is_a_valid_configuration(kind, machine):
    data = of_size(500, 700, sizes=3, aspects=(0.7, 1.4))
    plan = draft(data, machine, Guess(kind, "as given"), "DIR", {"seed": 5})
    config = plan.config()
    assert config.seed == 5 and config.data.dir == "DIR" and config.data.fit == "crop"
    assert all(choice.reason.endswith(".") for choices in plan.choices.values() for choice in choices)


def test_what_to_look_at_first():
    assert notes_of(DATA) == []
    leaks = replace(DATA, num_leaks=2, leaks=(("val/a.png", "train/b.png"), ("val/c.png", "train/d.png")))
    assert (
        "2 images outside the training split" in notes_of(leaks)[0]
        and "val/a.png and train/b.png" in notes_of(leaks)[0]
    )
    few = replace(DATA, images={"train": 100, "val": 1}, classes=(GROUND, thing(share=0.0)), brightest=0.1)
    absent, held_out, dark = notes_of(few)
    assert "No training image has dog" in absent and "val has only 1 image" in held_out and "10.0%" in dark
    assert "8 of 100 training images" in notes_of(replace(DATA, near_duplicates={"train": 8, "val": 0}))[0]
