"""What the values of several keys ask of each other."""

import math

from jaxseg.arguments import MIXING
from jaxseg.config.config_dict import ConfigDict
from jaxseg.config.schema import KEYS
from jaxseg.errors import ConfigError, counted


def require_valid_batches(config: ConfigDict) -> None:
    if config.batch_size % config.accumulate:
        raise ConfigError(f"batch_size {config.batch_size} is not divisible by accumulate {config.accumulate}.")


def require_valid_warmup(config: ConfigDict) -> None:
    if not config.epochs:  # else its steps are known with the data
        require_short_warmup(config)


def require_short_warmup(config: ConfigDict, origin: str = "") -> None:
    """Raises ConfigError unless `schedule.warmup` is below `steps`; `origin` says where this number comes from."""
    if config.schedule.warmup >= config.steps:
        raise ConfigError(
            f"schedule.warmup is {config.schedule.warmup}, which must be below steps={config.steps}{origin}; give "
            f"--config.schedule.warmup={config.steps // 10}, for instance."
        )


def require_valid_pruning(config: ConfigDict) -> None:
    c = config.prune
    if c.sparsity and config.lora.rank:
        raise ConfigError(
            "prune.sparsity sets weights of kernels to 0, to which lora.rank adds adapters; give one of them."
        )
    if c.sparsity and c.initial > c.sparsity:
        raise ConfigError(f"prune.initial={c.initial:g} must not be above prune.sparsity={c.sparsity:g}.")
    if c.sparsity and c.end and c.end < c.begin:
        raise ConfigError(f"prune.end={c.end} must not be before prune.begin={c.begin}.")
    if not config.epochs:  # else its steps are known with the data
        require_pruning_within_steps(config)


def require_pruning_within_steps(config: ConfigDict, origin: str = "") -> None:
    """Raises ConfigError unless the pruning ends within `steps`; `origin` says where this number comes from."""
    for name in ("begin", "end") if config.prune.sparsity else ():
        if config.prune[name] >= config.steps:
            raise ConfigError(
                f"prune.{name} is {config.prune[name]}, which must be below steps={config.steps}{origin}, so that the "
                "network learns on with its zeros; half of the steps is usual."
            )


def require_valid_images(config: ConfigDict) -> None:
    for given, size in zip(config.augment.crop, config.data.size):
        if given > size:
            raise ConfigError(f"augment.crop {config.augment.crop} is larger than data.size {config.data.size}.")
    if config.data.source != "folder" and (config.data.channels not in (1, 3, 4) or config.data.range):
        key = "data.range" if config.data.range else f"data.channels={config.data.channels}"
        raise ConfigError(
            f"{key} needs data.source=folder, got data.source={config.data.source}, of which images have 1, 3 or 4 "
            "channels of 8 bits."
        )
    given = {"data.mean": config.data.mean, "data.std": config.data.std}
    wrong = [key for key, values in given.items() if len(values) not in (1, config.data.channels)]
    lengths = [f"{key} has {counted(len(given[key]), 'number')}" for key in wrong]
    if wrong:
        raise ConfigError(
            f"{' and '.join(lengths)}; with "
            f"data.channels={config.data.channels} give {' '.join(f'--config.{key}=NUMBER' for key in wrong)}, or "
            f"{counted(config.data.channels, 'number')}{' for each' if len(wrong) > 1 else ''}."
        )


def require_valid_unlabelled(config: ConfigDict) -> None:
    if config.data.unlabelled and config.data.source != "folder":
        raise ConfigError(f"data.unlabelled needs data.source=folder, got data.source={config.data.source}.")


def takes_pairs(config: ConfigDict) -> str:
    """Returns the key for which images stand in pairs in the batch: `semi.method` or one that mixes images; or ""."""
    keys = {"semi.method": config.semi.method, **{f"augment.{name}": config.augment[name] for name in MIXING}}
    return next((key for key, value in keys.items() if value), "")


def require_valid_mixing(config: ConfigDict) -> None:
    given = {f"augment.{name}": config.augment[name] for name in MIXING if config.augment[name]}
    if not given:
        return
    if math.fsum(given.values()) > 1:
        values = [f"{key}={value:g}" for key, value in given.items()]
        raise ConfigError(
            f"{', '.join(values[:-1])} and {values[-1]} are the probabilities of changes of which an image has at most "
            "one; their sum must be at most 1."
        )
    mixed, adversarial = next(iter(given)), config.adversarial
    unlabelled = next((name for name in ("semi_weight", "unlabelled_weight") if adversarial[name]), "")
    if unlabelled:
        raise ConfigError(
            f"{mixed} puts pixels of images with labels and without over each other, and adversarial."
            f"{unlabelled} tells images without labels by their whole label map; leave one of the two out."
        )
    if config.augment.mixup and adversarial.weight:
        raise ConfigError(
            "augment.mixup gives an image two label maps, of which adversarial.weight judges one; leave one of the two "
            "out."
        )
    if config.semi.method:
        raise ConfigError(
            f"{mixed} and semi.method both make the views of a batch; leave one "
            "of the two out. semi.cutmix mixes the images without labels."
        )


def require_valid_semi(config: ConfigDict) -> None:
    semi, data = config.semi, config.data
    if semi.method == "mean_teacher" and not config.ema.decay:
        raise ConfigError(
            "semi.method=mean_teacher needs the moving average of the parameters, which is its teacher: give "
            "--config.ema.decay=0.99, for instance."
        )
    if semi.method and config.adversarial.weight:
        raise ConfigError("semi.method and adversarial.weight both teach from images without labels; give one of them.")
    if semi.method and data.source != "folder" and data.labelled == "":
        raise ConfigError(
            f"semi.method={semi.method} needs images without labels: data.labelled says which images keep theirs, "
            "1/64 of them, say."
        )
    unit, taker = 2 * config.accumulate, takes_pairs(config)
    if taker and config.batch_size % unit:
        raise ConfigError(
            f"{taker} needs pairs of images: batch_size={config.batch_size} must be a multiple of {unit}, twice "
            "accumulate."
        )
    if data.labelled_rows and (data.labelled_rows % unit or not 0 < data.labelled_rows < config.batch_size):
        raise ConfigError(
            f"data.labelled_rows={data.labelled_rows} must be a multiple of {unit}, twice accumulate, below "
            f"batch_size={config.batch_size}."
        )
    if data.labelled_rows and config.batch_size % unit:
        raise ConfigError(
            f"data.labelled_rows needs pairs of images: batch_size={config.batch_size} must be a multiple of {unit}, "
            "twice accumulate."
        )


def require_valid_annotations(config: ConfigDict) -> None:
    changed = [name for name in ("annotations", "weaken", "fold") if config.data[name]]
    if changed and config.data.train_split == config.data.val_split:
        raise ConfigError(
            f"data.{changed[0]} changes the training split {config.data.train_split!r}, which data.val_split names "
            "too; score another split."
        )
    if config.data.annotations and config.data.source != "folder":
        raise ConfigError(f"data.annotations needs data.source=folder, got data.source={config.data.source}.")
    if config.data.annotations and config.data.weaken:
        raise ConfigError(
            f"data.weaken={config.data.weaken} is made from full labels, which data.annotations replaces; leave one of "
            "the two out."
        )


def require_valid_normalisation(config: ConfigDict) -> None:
    """Raises if data.mean or data.std are those of images in [0, 255], since images are in [0, 1] here."""
    means = [v for v in config.data.mean if not 0 <= v <= 1]
    spreads = [v for v in config.data.std if v > 1]
    wrong = [*(("data.mean", v) for v in means[:1]), *(("data.std", v) for v in spreads[:1])]
    if wrong:
        ranges = [
            *(["a mean lies in [0, 1]"] if means else []),
            *(["a standard deviation is at most 1"] if spreads else []),
        ]
        raise ConfigError(
            f"{' and '.join(f'{key} has {v:g}' for key, v in wrong)}, but images are in [0, 1] before they are "
            f"normalised, so {' and '.join(ranges)}; divide those of 8-bit values by 255: "
            f"{' and '.join(f'{v:g} becomes {v / 255:.3f}' for _, v in wrong)}."
        )


def require_valid_adversarial(config: ConfigDict) -> None:
    for name, value in config.adversarial.items():
        if not config.adversarial.weight and value != KEYS[f"adversarial.{name}"].default:
            raise ConfigError(f"adversarial.{name} needs a discriminator: set adversarial.weight above 0.")
