"""How a configuration turns stored images into the input of its network."""

import jax

from jaxseg import losses, mixing
from jaxseg.arguments import MIXING
from jaxseg.config import ConfigDict
from jaxseg.consistency import make_teach as make_teach_of
from jaxseg.data import augment, photometric
from jaxseg.state import Network
from jaxseg.step import Augment, Prepare, Teach
from jaxseg.types import ignore_label


def input_size(config: ConfigDict) -> tuple[int, int]:
    """Returns the (height, width) of the network input in training."""
    return tuple(config.augment.crop) or tuple(config.data.size)


def make_prepare(config: ConfigDict) -> Prepare:
    """Returns the function raw images [b,h,w,c] -> network input, for evaluation and prediction."""

    def prepare(image: jax.Array) -> jax.Array:
        return augment.normalize(augment.to_float(image), config.data.mean, config.data.std)

    return prepare


def make_augment(config: ConfigDict, classes: int = 2) -> Augment:
    """Returns the function (key, raw image, label) -> (network input, label) of one example, for training.

    The number of classes decides which label is that of an ignored pixel, see `types.ignore_label`.
    """
    ignored = ignore_label(classes, bool(config.data.multilabel))
    augment_unnormalised = augment.from_config(config.augment, ignored)

    def augment_example(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        image, label = augment_unnormalised(key, augment.to_float(image), label)
        return augment.normalize(image, config.data.mean, config.data.std), label

    return augment_example


def make_teach(config: ConfigDict, network: Network, loss: losses.Loss) -> Teach | None:
    """Returns what makes the views of a batch, and the teacher's answer if images without labels teach; None if each
    image is a view by itself."""
    a, ignored = config.augment, ignore_label(loss.num_classes, bool(config.data.multilabel))
    if any(a[name] for name in MIXING):
        return mixing.make_mix(
            make_augment(config, loss.num_classes),
            cutmix=a.cutmix,
            classmix=a.classmix,
            copy_paste=_copy_paste(config, loss.num_classes, ignored),
            mixup=a.mixup,
            mixup_alpha=a.mixup_alpha,
            ignore=ignored,
        )
    if not config.semi.method:
        return None
    mean, std = config.data.mean, config.data.std
    change = photometric.make_stronger(config.semi.strength)

    def stronger(key: jax.Array, image: jax.Array) -> jax.Array:
        return augment.normalize(change(key, augment.unnormalize(image, mean, std)), mean, std)

    return make_teach_of(
        network,
        augment=make_augment(config, loss.num_classes),
        stronger=stronger,
        one_vs_rest=loss.one_vs_rest,
        cutmix=config.semi.cutmix,
        both=config.semi.features > 0,
        ignore=ignore_label(loss.num_classes),
    )


def _copy_paste(config: ConfigDict, num_classes: int, ignored: int) -> mixing.CopyPaste | None:
    a = config.augment
    if not a.copy_paste:
        return None
    moves = a.copy_paste_flip > 0 or tuple(a.copy_paste_scale) != (1.0, 1.0)
    move = augment.make_augment(flip_horizontal=a.copy_paste_flip, zoom=tuple(a.copy_paste_scale), ignore=ignored)
    return mixing.CopyPaste(
        a.copy_paste,
        tuple(a.copy_paste_classes) or tuple(range(1, max(num_classes, 2))),
        connected=a.copy_paste_of == "objects",
        move=move if moves else None,
    )
