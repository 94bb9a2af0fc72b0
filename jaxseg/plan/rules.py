"""The rules of a plan: each a pure function of the fingerprint, to the keys that it sets and the reason.

They are rules of thumb: the numbers in them are where this project's own runs did well (docs/plan.md says which), and
a person who knows the data knows better. Each choice stands in the plan with its reason, to be changed.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from jaxseg.errors import counted
from jaxseg.plan.fingerprint import Fingerprint

Kind = Literal["photo", "aerial", "microscopy", "medical", "text"]

_STEP = 32  # the sides of a patch are multiples of it
_SAME_ASPECT = 1.05
_RARE = 0.01  # the share of a class from which its pixels are seldom seen
_OFTEN = 5  # passes from which on images repeat so much that they have to be varied
_LEAST_STEPS = 600
_UPRIGHT = 0.04  # of a class: the distance of centres of mass from the middle, by height, from which there is an up
_MANY = 50  # objects from which that says something


class Machine(NamedTuple):
    """backend: cpu, gpu or tpu. devices: how many of it."""

    backend: str
    devices: int = 1

    @property
    def quick(self) -> bool:
        return self.backend != "cpu"


class Choice(NamedTuple):
    """Keys of the configuration with their values, and why."""

    keys: Mapping[str, Any]
    reason: str


class Guess(NamedTuple):
    """What the images are, and by what it is known."""

    kind: Kind
    reason: str


def guess_kind(data: Fingerprint) -> Guess:
    """Returns what the images are, as far as their files and masks tell."""
    objects = sum(each.objects for each in data.things) / data.train
    share = sum(each.share for each in data.things)
    bright = sum(data.mean) / len(data.mean)
    apart = f"the classes of the upper and the lower half differ by {data.up_down:.0%}"
    if data.located:
        return Guess("aerial", f"{data.located:.0%} of the files say where on the earth they lie")
    if bright > 0.7 and data.coloured < 0.5 and objects >= 20 and share < 0.3:
        return Guess("text", f"bright grey images with {objects:.0f} small objects each")
    if data.coloured < 0.5:
        if objects >= 5:
            return Guess(
                "microscopy", f"{1 - data.coloured:.0%} of the images are grey, with {objects:.0f} objects each"
            )
        return Guess("medical", f"{1 - data.coloured:.0%} of the images are grey, with {objects:.1f} objects each")
    square = data.num_sizes == 1 and data.aspects == (1.0, 1.0)
    if not square or data.up_down >= 0.05:
        return Guess("photo", f"coloured images, and {apart}")
    many = [each for each in data.things if each.objects >= _MANY]
    upright = max(many, key=lambda each: abs(each.below), default=None)
    if upright is not None and abs(upright.below) > _UPRIGHT:
        side = "below" if upright.below > 0 else "above"
        return Guess(
            "photo",
            f"coloured images, and objects of {upright.name} have their centre of mass {side} their middle by "
            f"{abs(upright.below):.0%} of their height: there is an up",
        )
    return Guess("aerial", f"coloured square images of one size, and {apart}, nor have objects an up: no side is up")


def choose_fit(data: Fingerprint, machine: Machine) -> Choice:
    """Returns how images get to one size: whole, shrunk with their aspect, or as patches at their own scale."""
    (height, width), (tall, wide) = data.middle, data.largest
    most = 768**2 if machine.quick else 256**2
    of_one_aspect = data.aspects[1] <= _SAME_ASPECT * data.aspects[0]
    if data.num_sizes == 1 and height * width <= most:
        return _resized(data.middle, f"All images are {height}x{width}, small enough to be seen whole.")
    if of_one_aspect and tall * wide <= most:
        return _resized(_rounded(height, width, 1.0), "Images of one aspect and little size: all get the middle one.")
    smallest = min(data.things, key=lambda each: each.typical, default=None)
    scale = math.sqrt(most / (tall * wide))
    if of_one_aspect and smallest is not None and smallest.typical * scale >= 12:
        size = _rounded(tall, wide, scale)
        return _resized(
            size,
            f"All images have one aspect, which is kept: {tall}x{wide} becomes {size[0]}x{size[1]}, in which the "
            f"objects of {smallest.name} are still {smallest.typical * scale:.0f} pixels wide.",
        )
    return _patches(data, machine, "one aspect" if of_one_aspect else "several aspects")


def _resized(size: tuple[int, int], reason: str) -> Choice:
    return Choice({"data.fit": "resize", "data.size": size}, reason)


def _rounded(height: int, width: int, scale: float) -> tuple[int, int]:
    """Returns a scaled size whose height is a multiple of 16, and whose even width keeps the aspect."""
    tall = max(16, 16 * round(height * scale / 16))
    return tall, max(2, 2 * round(tall * width / height / 2))


def _patches(data: Fingerprint, machine: Machine, aspects: str) -> Choice:
    low, high = (256, 512) if machine.quick else (128, 192)
    wide = max((each.diameters[2] for each in data.things), default=0.0)
    wanted = _STEP * round(3 * wide / _STEP)
    room = _STEP * math.ceil(max(data.largest) / _STEP)
    side = min(max(low, min(wanted, high)), room)
    return Choice(
        {"data.fit": "crop", "data.size": (side, side)},
        f"{_spread(data)} of {aspects}: patches of {side}x{side} at their own scale, so that nothing is squeezed "
        f"and no detail is lost. A tenth of the objects are wider than {wide:.0f} pixels; a patch should hold about "
        f"three such, within {low} to {high} on {_a_device(machine)}.",
    )


def choose_sampling(data: Fingerprint, fit: str, size: tuple[int, ...]) -> tuple[Choice, ...]:
    """Returns which images the patches come from, if images are of several sizes."""
    if fit != "crop" or data.num_sizes == 1:
        return ()
    (height, width, _), (tall, wide) = data.sizes[0], data.largest
    patches = max(data.train, round(data.area / (size[0] * size[1])))
    return (
        Choice(
            {"data.sampling": "area"},
            f"Patches by area, since scores count pixels: an image of {tall}x{wide} has "
            f"{counted(windows_of(tall, wide, size), 'patch')} in a pass, one of {height}x{width} has "
            f"{windows_of(height, width, size)}; together about {patches}.",
        ),
    )


def windows_of(height: int, width: int, size: tuple[int, ...]) -> int:
    """Returns how many patches of a size cover an image of another, rounded; at least 1, as `sampling.area_order`."""
    return max(1, round(height * width / (size[0] * size[1])))


def _spread(data: Fingerprint) -> str:
    if data.num_sizes == 1:
        return f"Images of {data.middle[0]}x{data.middle[1]}"
    tall, wide = data.largest
    return f"Images of {counted(data.num_sizes, 'size')}, up to {tall}x{wide},"


def _a_device(machine: Machine) -> str:
    return {"cpu": "a CPU", "gpu": "a GPU", "tpu": "a TPU"}[machine.backend]


def choose_values(data: Fingerprint) -> Choice:
    """Returns how the values of images are brought to the range of the network."""
    keys: dict[str, Any] = {"data.channels": data.channels}
    dark = data.brightest < 0.25
    if data.channels == 3 and not dark:
        return Choice(
            keys, "Images of three channels: the usual mean and std, with which published weights were trained too."
        )
    keys |= {"data.mean": data.mean, "data.std": tuple(max(value, 0.001) for value in data.std)}
    why = (
        f"the largest value is {data.brightest:.0%} of {data.whole_range}"
        if dark
        else f"they have {counted(data.channels, 'channel')}"
    )
    return Choice(keys, f"Mean and std are those of the {counted(data.train, 'training image')}, since {why}.")


def choose_network(data: Fingerprint, machine: Machine, size: tuple[int, int]) -> Choice:
    """Returns a U-Net: as deep as the images allow, as wide as their number and the machine do."""
    levels = min(5, max(3, int(math.log2(max(min(size) // 8, 1))) + 1))
    first = 16 if not machine.quick or data.train < 50 else 32 if data.train < 5000 else 64
    widths = tuple(first * 2**level for level in range(levels))
    return Choice(
        {"model.name": "unet", "model.args": {"widths": widths}},
        f"U-Net from random weights: {levels} levels, so that the coarsest has at least 8 pixels a side; {first} "
        f"channels at first, for {counted(data.train, 'image')} and {_a_device(machine)}. With fewer than some hundred "
        "photos, weights of ImageNet in the encoder are worth a trial (docs/pretrained.md).",
    )


def choose_batch(machine: Machine, size: tuple[int, int]) -> Choice:
    """Returns the batch that is wanted, before the memory is known."""
    wanted, most, area = (16, 32, 512**2) if machine.quick else (8, 8, 128**2)
    pixels = wanted * area / (size[0] * size[1])
    images = machine.devices * min(most, max(4, 2 ** int(math.log2(max(pixels, 1)))))
    return Choice({"batch_size": images}, batch_words(images, machine))


def batch_words(images: int, machine: Machine) -> str:
    """Returns a sentence about the images of a step."""
    devices = counted(machine.devices, f"{machine.backend.upper()} device")
    return f"{counted(images, 'image')} a step on {devices}."


def choose_loss(data: Fingerprint) -> Choice:
    """Returns the loss, by the shares of the classes."""
    present = [each for each in data.classes if each.share]
    rarest = min(present, key=lambda each: each.share)
    keys: dict[str, Any] = {"loss.terms": "cross_entropy + dice"}
    shares = f"the rarest of {counted(len(present), 'class')}, {rarest.name}, has {rarest.share:.2%} of the pixels"
    if rarest.share >= _RARE:
        return Choice(keys, f"Cross-entropy for each pixel, Dice for each class whatever its share: {shares}.")
    if len(present) > 2:
        keys["loss.class_weights"] = "effective_number"
        return Choice(keys, f"Classes weigh by their effective number, since {shares}; Dice helps the rare ones too.")
    return Choice(keys, f"Dice counts a class whatever its share: {shares}.")


def choose_augmentation(data: Fingerprint, guess: Guess, passes: float, fit: Choice) -> Choice:
    """Returns the random changes of images, by what they are and by how often each is seen."""
    kind = guess.kind
    sided = data.left_right > 0.2 or kind == "text"
    keys: dict[str, Any] = {"augment.flip_horizontal": 0.0 if sided else 0.5}
    words = [f"{kind.capitalize()} ({guess.reason})"]
    if kind in ("aerial", "microscopy"):
        keys["augment.flip_vertical"] = 0.5
        words.append("no side is up, so that images are mirrored both ways")
    elif kind == "text":
        words.append("mirrored or turned letters are no letters")
    elif sided:
        words.append(f"left and right differ by {data.left_right:.0%} in their classes, so that nothing is mirrored")
    else:
        words.append("mirrored left to right, never upside down")
    if passes < _OFTEN:
        return Choice(
            keys, f"{'; '.join(words)}. Each image is seen only {passes:.1f} times: it needs no other change."
        )
    if kind != "text":
        whole = fit.keys["data.fit"] == "resize"
        low, high = (
            {"photo": (0.75, 1.5), "microscopy": (0.7, 1.4)}[kind] if kind in ("photo", "microscopy") else (0.8, 1.25)
        )
        keys["augment.zoom"] = (low, high)
        keys["augment.rotate"] = 15.0 if kind in ("aerial", "microscopy") and not whole else 5.0
        words.append("objects come larger, smaller and a little turned")
    keys |= {"augment.brightness": 0.2, "augment.contrast": 0.2}
    if data.channels == 3 and data.coloured:
        keys["augment.saturation"] = 0.2
    return Choice(keys, f"{'; '.join(words)}; light and colours vary by a fifth.")


def passes_of(images: int) -> float:
    """Returns how often a training sees each image: 40 times, and less often of more than 500."""
    return 40 * min(1.0, math.sqrt(500 / images))


def choose_steps(images: int, batch: int, first_width: int) -> Choice:
    """Returns the length of the training by passes over its images, and the rate of learning."""
    wanted = _two_digits(passes_of(images) * images / batch)
    steps = max(_LEAST_STEPS, wanted)
    passes = f"{steps * batch / images:.0f} passes over {counted(images, 'image')}"
    least = f": at least {_LEAST_STEPS} steps" if wanted < steps else ""
    return Choice(_length(steps, first_width), f"{counted(steps, 'step')}, {passes}{least}.")


def given_steps(steps: int, first_width: int) -> Choice:
    """Returns the other keys of the length for a number of steps that a person has given."""
    return Choice(_length(steps, first_width), f"{counted(steps, 'step')} were asked for.")


def steps_in(minutes: float, seconds: float, compiling: float, evaluation: float, first_width: int) -> Choice:
    """Returns the length of a training of some minutes.

    Args:
        minutes: in all.
        seconds: of a step, measured.
        compiling: seconds.
        evaluation: seconds of one of the five evaluations.
        first_width: channels of the first level.
    """
    left = 0.92 * 60 * minutes - compiling - 5 * evaluation
    steps = max(20, _two_digits(left / seconds, down=True))
    return Choice(
        _length(steps, first_width),
        f"{minutes:g} minutes were asked for: a step was measured to take {seconds:.2g} s here, compilation and five "
        f"evaluations {compiling + 5 * evaluation:.0f} s, and a twelfth is left for others; the rest is "
        f"{counted(steps, 'step')}.",
    )


def _two_digits(value: float, *, down: bool = False) -> int:
    unit = 10 ** max(0, int(math.log10(max(value, 1))) - 1)
    return int((math.floor if down else round)(value / unit)) * unit


def _length(steps: int, first_width: int) -> dict[str, Any]:
    fifth = max(1, math.ceil(steps / 5))
    return {
        "steps": steps,
        "schedule.name": "cosine",
        "schedule.warmup": min(500, steps // 15),
        "optimizer.learning_rate": 3e-3 if first_width <= 16 else 1e-3,
        "optimizer.weight_decay": 1e-2,
        "eval.every": fifth,
        "checkpoint.every": fifth,
        "log.every": max(1, min(50, steps // 30)),
    }


def choose_evaluation(data: Fingerprint, machine: Machine, fit: Choice) -> Choice:
    """Returns how images are scored."""
    if fit.keys["data.fit"] == "resize":
        return Choice({"eval.batch_size": 8 * machine.devices}, "Whole images; the scores are those at their own size.")
    side = max(fit.keys["data.size"][0], 512 if machine.quick else 256)
    side = min(side, _STEP * math.ceil(max(data.largest) / _STEP))
    return Choice(
        {"eval.batch_size": 8 * machine.devices, "eval.tiles": f"{side}x{side}", "eval.overlap": 0.25},
        f"In tiles of {side}x{side} at their own scale: few programs compile, whatever the sizes of the images.",
    )


def steps_of_evaluation(data: Fingerprint, fit: Choice, batch: int, size: tuple[int, ...]) -> float:
    """Returns the time of an evaluation in steps of training: a pass forward takes about two fifths of a step."""
    held_out = list(data.images.values())[-1]
    whole = fit.keys["data.fit"] == "resize"
    seen = size[0] * size[1] if whole else 1.8 * data.middle[0] * data.middle[1]  # tiles overlap
    return 0.4 * held_out * seen / (batch * size[0] * size[1])
