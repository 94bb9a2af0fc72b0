"""Makes one split of a data set from `config.data`: the table of names, and the checks against the configuration."""

from jaxseg import losses
from jaxseg.config import ConfigDict, with_values
from jaxseg.data.base import Source
from jaxseg.data.folds import HELD_OUT, held_out, without_fold
from jaxseg.data.labelled import PartlyLabelled, choose_labelled
from jaxseg.errors import ConfigError, DataError, counted, nearest
from jaxseg.pictures.opening import allow_pixels_of_data

SOURCES = ("shapes", "folder", "camvid", "voc2012", "oxford_iiit_pet", "cityscapes", "scene_parse150")
"""The values of `data.source`."""


def make_source(config: ConfigDict, split: str, *, strict: bool = True, named_by: str = "") -> Source:
    """Returns one split of the data set that `config.data` describes; the training split without `data.fold`.

    Args:
        config: the whole configuration.
        split: "train", "val" or "test"; for TFDS data sets also a slice such as "train[:90%]"; with `data.fold` also
            "fold", the training images that it leaves out, with all their labels.
        strict: raise if anything in a folder is wrong; otherwise list it in `problems`, for `jaxseg.data.check`, which
            reads all folds.
        named_by: what named `data.classes`, for the message where the data have others: "the run in DIR"; "": the user.

    Raises:
        ConfigError: if there is no data set `data.source`, or no term of the loss uses `data.unlabelled`, or tags that
            `data.weaken` leaves.
        DataError: if the data is missing, damaged or empty, or does not match `data.classes` or
            `model.num_classes`.
    """
    data = config.data
    if data.fold and split == HELD_OUT:
        return held_out(make_source(_whole(config), data.train_split, strict=strict, named_by=named_by), data)
    allow_pixels_of_data(data.max_pixels)
    require_use_of_unlabelled(config)
    require_windows(config)
    loss, unlabelled = loss_of(config), learns_without_labels(config)
    if data.source == "shapes":
        from jaxseg.data.shapes import ShapesSource

        length = data.shapes_train if split == "train" else data.shapes_val
        source: Source = ShapesSource(
            split,
            length,
            tuple(data.size),
            channels=data.channels,
            imbalance=data.shapes_imbalance,
            multilabel=bool(data.multilabel),
        )
    elif data.source == "folder":
        from jaxseg.data import folders

        source = (
            folders.with_sets(config, split, strict=strict)
            if data.multilabel
            else folders.with_annotations(config, possible=loss.takes_possible, unlabelled=unlabelled, strict=strict)
            if data.annotations and split == data.train_split
            else folders.with_masks(config, split, unlabelled=unlabelled, strict=strict)
        )
    elif data.source in SOURCES:
        from jaxseg.data.tfds import TFDSSource

        source = TFDSSource(data.source, split, data.dir, data.cache, channels=data.channels)
    else:
        raise ConfigError(f"There is no data set data.source={data.source!r}.{nearest(data.source, SOURCES)}")
    if data.weaken and split == data.train_split:
        if data.weaken == "tags" and not loss.takes_possible:
            raise ConfigError(
                "data.weaken=tags leaves tags of images alone, which only the loss term size_constraint learns from."
            )
        from jaxseg.data.folders import weakened

        source = weakened(source, config, loss.takes_possible)
    check_source(source, config, split, named_by)
    if data.fold and split == data.train_split and strict:
        return without_fold(source, data)
    return source


def _whole(config: ConfigDict) -> ConfigDict:
    """Returns a configuration of the whole training split with full labels."""
    return with_values(config, {"data.fold": "", "data.weaken": "", "data.annotations": "", "data.unlabelled": ""})


def training_source(config: ConfigDict) -> Source:
    """Returns the training split, of which `data.labelled` says which images keep their labels.

    The other images have IGNORE as every label, or are left out if nothing in the configuration learns from them. The
    proposals of `data.proposals` that a person kept are added.

    Raises:
        ConfigError, DataError: as `make_source`, `choose_labelled` and `with_proposals` do.
    """
    return as_learned(make_source(config, config.data.train_split), config)


def as_learned(source: Source, config: ConfigDict) -> Source:
    """Returns a training split as `training_source` does, of one that is open and without `data.fold`."""
    if config.data.labelled != "":
        source = PartlyLabelled(source, chosen_labelled(config, source), learns_without_labels(config))
    if not config.data.proposals:
        return source
    from jaxseg.data.proposals import with_proposals

    return with_proposals(source, config.data.proposals)


def chosen_labelled(config: ConfigDict, train: Source) -> tuple[int, ...]:
    """Returns the indices of the images of the training split that `data.labelled` leaves with labels."""
    seed = config.data.labelled_seed
    return choose_labelled(train, config.data.labelled, config.seed if seed < 0 else seed)


def compares_images(config: ConfigDict) -> bool:
    """Returns whether a term of the loss has images without labels too; raises ConfigError for an unknown term."""
    return not loss_of(config).needs_labels


def loss_of(config: ConfigDict) -> losses.Loss:
    """Returns the terms of the loss of a configuration, for two classes; raises ConfigError for an unknown term."""
    try:
        return losses.make_loss(config.loss.terms, num_classes=2, multilabel=bool(config.data.multilabel))
    except ValueError as error:
        raise ConfigError(f"loss: {error}") from error


def require_use_of_unlabelled(config: ConfigDict) -> None:
    """Raises ConfigError if images without labels are named, or get rows of a batch, and nothing learns from them."""
    named = {"data.unlabelled": config.data.unlabelled, "data.labelled_rows": config.data.labelled_rows}
    given = [key for key, value in named.items() if value]
    without = [*given, *(["data.labelled"] if config.data.labelled and learns_without_labels(config) else [])]
    if config.data.sampling == "rare" and without:
        raise ConfigError(
            "data.sampling=rare draws images by the classes of their masks, and so never one without labels; leave out "
            f"it or {without[0]}."
        )
    if given and not uses_unlabelled(config):
        raise ConfigError(
            f"{given[0]} needs a term that images without labels have: set semi.method, or adversarial.weight and "
            "adversarial.semi_weight or adversarial.unlabelled_weight above 0, or use the loss term entropy, "
            "gated_crf or reconstruction, or generator and discriminator."
        )


def require_windows(config: ConfigDict) -> None:
    """Raises ConfigError if data.sampling=area is given for whole images, or for rows of images with labels."""
    if config.data.sampling != "area":
        return
    if config.data.fit != "crop":
        raise ConfigError(
            "data.sampling=area draws large images more often, since a window shows little of them, but with "
            f"data.fit={config.data.fit} each is seen whole; set data.fit=crop, or leave out data.sampling."
        )
    if config.data.labelled_rows:
        raise ConfigError(
            "data.labelled_rows has an order of images with labels and one of those without, and data.sampling=area "
            "one of all; leave one of the two out."
        )


def uses_unlabelled(config: ConfigDict) -> bool:
    """Returns whether images whose labels are all ignored teach the network of a configuration."""
    adversarial = config.adversarial.semi_weight or config.adversarial.unlabelled_weight
    return bool(config.semi.method or adversarial or compares_images(config) or loss_of(config).learns_unlabelled)


def learns_without_labels(config: ConfigDict) -> bool:
    """Returns whether images whose labels are all ignored could teach; a discriminator needs a weight for them."""
    return config.adversarial.weight > 0 or uses_unlabelled(config)


def split_of_data(config: ConfigDict, split: str) -> str:
    """Returns the data set's name for a split: "train" and "val" are those that a run of `config` is trained with."""
    known = {"train": config.data.train_split, "val": config.data.val_split}
    return known[split] if split in known else split


def check_source(source: Source, config: ConfigDict, split: str, named_by: str = "") -> None:
    """Raises DataError if `source` is empty or its classes differ from those of `config`; see `make_source`."""
    what = f"the {config.data.source} data" + (f" in {config.data.dir!r}" if config.data.dir else "")
    classes = source.info.classes
    if len(source) == 0:
        raise DataError(f"The split {split!r} of {what} has no images; at least 1 was expected.")
    given = tuple(config.data.classes)
    if given and given != classes and named_by:
        raise DataError(
            f"{what[0].upper()}{what[1:]} has {counted(len(classes), 'class')} ({', '.join(classes)}), but {named_by} "
            f"was trained on {counted(len(given), 'class')} ({', '.join(map(str, given))}): names and order must be "
            "the same, and classes.json in a folder gives them."
        )
    if given and given != classes:
        raise DataError(
            f"data.classes names {counted(len(given), 'class')} ({', '.join(map(str, given))}), but {what} has "
            f"{len(classes)} ({', '.join(classes)}); leave data.classes empty to take those of the data."
        )
    if len(classes) == 1:
        raise DataError(
            f"{what[0].upper()}{what[1:]} has the one class {classes[0]!r}, so there is nothing to distinguish: "
            "name the others too, in classes.json or data.classes, or ignore fewer values. If the masks hold no other, "
            "give what is around this class a value of its own."
            if not config.data.multilabel
            else f"{what[0].upper()}{what[1:]} has the one class {classes[0]!r}, where data.multilabel is for several "
            "that a pixel may have at once; a mask of 0 and 255 without data.multilabel says where it is."
        )
    outputs = config.model.num_classes
    if outputs == 1 and len(classes) != 2:
        raise DataError(f"model.num_classes=1 is for two classes, but {what} has {counted(len(classes), 'class')}.")
    if outputs > 1 and outputs != len(classes):
        raise DataError(
            f"model.num_classes is {outputs}, but {what} has {counted(len(classes), 'class')}; 0 takes as "
            "many as the data has."
        )
