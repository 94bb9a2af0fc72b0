"""What a network, a loss and the rest of a configuration ask of each other, checked before anything is built."""

import logging

from jaxseg import models
from jaxseg.arguments import MIXING
from jaxseg.config import ConfigDict
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.losses import Loss
from jaxseg.losses.table import LOSSES
from jaxseg.mixing import check_mixable
from jaxseg.types import MOST_IN_SETS

_LOG = logging.getLogger("jaxseg.build")


def note_unused(config: ConfigDict) -> None:
    """Logs a note for a field of the model that has no effect in any command."""
    args = config.model.args
    if "sow_attention" in args and args.sow_attention is True:
        _LOG.warning(
            "model.args.sow_attention=True has no effect in training, evaluation and prediction, and can be left out; "
            "from Python, run.model.clone(sow_attention=True).apply(run.variables, image, train=False, "
            "mutable=['intermediates']) gives the attention weights of any run."
        )


def note_untrained(config: ConfigDict, loss: Loss) -> None:
    """Logs a note for an output of the network that only one term reads, if it is none of the loss.

    Outputs of which the logits are made, and those of losses that compare images, are left out.
    """
    for name, definition in LOSSES.items():
        other = definition.trains_logits or definition.compares_images or config.model.name not in definition.networks
        if not other and all(term.definition.reads != definition.reads for term in loss.terms):
            _LOG.warning(
                f"model.name={config.model.name} has an output for the loss term {name}, which "
                f"loss.terms={config.loss.terms!r} lacks, so that the head of this output learns nothing; "
                f"add + {name} to train it."
            )


def check_semi(config: ConfigDict, loss: Loss) -> None:
    """Raises ConfigError if the network lacks what `semi.method` compares, or the features that it drops."""
    if config.semi.method and loss.class_samples is not None:
        raise ConfigError(
            "semi.method compares the logits of all classes, but sampled_cross_entropy with sampling='uniform' in "
            "loss.args computes those of the sampled classes alone; leave one of the two out."
        )
    if config.semi.method and not loss.needs_labels:
        raise ConfigError(
            f"semi.method teaches classes, but a term of loss.terms={config.loss.terms!r} compares images, of which "
            "those without labels have a loss already; leave one of the two out."
        )
    if config.semi.method and config.semi.features and config.model.name in models.WITHOUT_ENCODER:
        raise ConfigError(
            f"semi.features drops features of the encoder, a child that model.name={config.model.name} does not have; "
            "leave it 0, or give a network with an encoder."
        )
    if config.semi.method and config.semi.features and loss.learns_unlabelled:
        raise ConfigError(
            f"semi.features adds views without labels to a batch, which a term of loss.terms={config.loss.terms!r} "
            "would take for images without labels; leave one of the two out."
        )


def check_sampling(config: ConfigDict) -> None:
    """Raises ConfigError if a part of the configuration needs the logits that a loss of sampled classes leaves out."""
    if config.model.name in models.NEED_ALL_CLASSES:
        able = ", ".join(name for name in models.names() if name not in models.NEED_ALL_CLASSES)
        raise ConfigError(
            f"loss.args: sampled_cross_entropy with sampling='uniform' needs a network that computes the logits of "
            f"some classes alone, which model.name={config.model.name} cannot; networks that can are {able}."
        )
    if config.model.crf:
        raise ConfigError(
            "model.crf compares the logits of all classes, but sampled_cross_entropy with sampling='uniform' in "
            "loss.args computes those of the sampled classes alone; leave one of the two out."
        )
    if config.distill.teacher:
        raise ConfigError(
            "distill.teacher teaches the logits of all classes, but sampled_cross_entropy with sampling='uniform' in "
            "loss.args computes those of the sampled classes alone; leave one of the two out."
        )
    if config.adversarial.weight:
        raise ConfigError(
            "adversarial.weight judges the logits of all classes, but sampled_cross_entropy with sampling='uniform' in "
            "loss.args computes those of the sampled classes alone; leave one of the two out."
        )


def check_multilabel(config: ConfigDict) -> None:
    """Raises ConfigError if a part of the configuration takes each pixel for one of one class, and it may have several.

    The terms of the loss are checked where it is made.
    """
    data, form = config.data, config.data.multilabel
    if data.unknown != "pixel" and form != "folders":
        raise ConfigError(
            f"data.unknown={data.unknown} is of pictures of single classes: it needs data.multilabel=folders, got "
            f"data.multilabel={form!r}."
        )
    if not form:
        return
    if config.model.num_classes == 1 or config.model.num_classes > MOST_IN_SETS:
        raise ConfigError(
            f"data.multilabel={form} is for 2 to {MOST_IN_SETS} classes, of which a pixel may have several; got "
            f"model.num_classes={config.model.num_classes}."
        )
    if data.source not in ("folder", "shapes") or (data.source == "shapes" and form == "folders"):
        raise ConfigError(
            f"data.multilabel={form} needs masks that say so: data.source=folder (or shapes with bits), got "
            f"data.source={data.source}."
        )
    if config.loss.class_weights.partition(":")[0] in ("median_frequency", "effective_number"):
        raise ConfigError(
            f"loss.class_weights={config.loss.class_weights} counts pixels that are of one class, and with "
            f"data.multilabel={form} a pixel may have several; give a number for each class."
        )
    one_class = [
        ("data.palette", bool(data.palette)),
        ("data.weaken", bool(data.weaken)),
        ("data.annotations", bool(data.annotations)),
        ("data.unlabelled", bool(data.unlabelled)),
        ("data.labelled", data.labelled != ""),
        ("data.proposals", bool(data.proposals)),
        ("data.sampling=rare", data.sampling == "rare"),
        ("data.division=former", data.division == "former"),
        ("augment.crop_balanced", config.augment.crop_balanced > 0),
        ("augment.crop_max_share", config.augment.crop_max_share < 1),
        ("augment.classmix", config.augment.classmix > 0),
        ("augment.copy_paste", config.augment.copy_paste > 0),
        ("semi.method", bool(config.semi.method)),
        ("adversarial.weight", config.adversarial.weight > 0),
        ("distill.teacher", bool(config.distill.teacher)),
        ("model.crf", bool(config.model.crf)),
        (
            f"model.name={config.model.name}",
            config.model.name in (*models.GENERATORS, "eomt", "knet", "mask2former", "pointrend"),
        ),
    ]
    for key, given in one_class:
        if given:
            raise ConfigError(
                f"{key} takes each pixel for one of one class, and with data.multilabel={form} a pixel may have "
                "several or none; leave one of the two out."
            )


def check_weak(config: ConfigDict, loss: Loss) -> None:
    """Raises ConfigError where terms for weak labels meet what reads labels or logits in another way."""
    weak = [term.name for term in loss.terms if term.definition.unlabelled or term.definition.takes_possible]
    if weak and loss.one_vs_rest:
        raise ConfigError(
            f"The loss term {weak[0]} takes the logits for those of a softmax, and binary_cross_entropy or another "
            "term trains one sigmoid for each class; leave one of the two out."
        )
    if config.semi.method and loss.takes_possible:
        raise ConfigError(
            "semi.method tells images without labels by their label maps, but with the loss term size_constraint boxes "
            "and tags say only which class a pixel may have; leave one of the two out."
        )
    mixed = next((name for name in MIXING if config.augment[name]), "")
    if mixed and loss.takes_possible:
        raise ConfigError(
            f"augment.{mixed} puts pixels of one image over another, but with the loss term size_constraint boxes and "
            "tags say which classes an image may have; leave one of the two out."
        )
    if config.adversarial.weight and loss.takes_possible:
        raise ConfigError(
            "adversarial.weight compares whole label maps, but with the loss term size_constraint boxes and tags say "
            "only which class a pixel may have; leave one of the two out."
        )


def check_sigmoids(config: ConfigDict, loss: Loss) -> None:
    """Raises ConfigError if the loss trains a sigmoid for each class and the network compares the classes itself."""
    if loss.one_vs_rest and config.model.name == "knet":
        terms = [term.name for term in loss.terms if term.definition.has_sigmoids(dict(term.options))]
        raise ConfigError(
            f"model.name=knet divides each pixel among the classes by a softmax, and loss.terms has {terms[0]}, which "
            "trains one sigmoid for each class; take a term such as cross_entropy, or another network."
        )


def check_mixing(config: ConfigDict, loss: Loss) -> None:
    """Raises ConfigError if the loss cannot take two labels of one image, or a class that is pasted is none."""
    if config.augment.mixup:
        try:
            check_mixable(loss)
        except ArgumentError as error:
            raise ConfigError(f"augment.mixup={config.augment.mixup:g}: {error}") from error
    classes = max(loss.num_classes, 2)
    for number in config.augment.copy_paste_classes:
        if number >= classes:
            raise ConfigError(
                f"augment.copy_paste_classes has {number}, and the classes are numbered from 0 to {classes - 1}."
            )


def check_generator(config: ConfigDict) -> None:
    """Raises ConfigError if the images are not in [-1, 1] as those of a generator, or a second discriminator is set."""
    for key, values in (("data.mean", config.data.mean), ("data.std", config.data.std)):
        if any(value != 0.5 for value in values):
            raise ConfigError(
                f"{key} must be 0.5 for model.name={config.model.name}, whose generator makes images in [-1, 1]; got "
                f"{', '.join(f'{value:g}' for value in values)}. Give --config.data.mean=0.5 --config.data.std=0.5."
            )
    if config.adversarial.weight:
        raise ConfigError(
            f"adversarial.weight adds a discriminator of label maps, but model.name={config.model.name} has one of "
            "images, which learns by the loss term discriminator; leave adversarial.weight at 0."
        )


def check_tuning(config: ConfigDict) -> None:
    """Raises ConfigError if what would train is frozen."""
    if config.lora.rank and not config.optimizer.encoder_rate:
        raise ConfigError(
            "lora.rank trains adapters of the encoder, whose kernels are frozen anyway, and optimizer.encoder_rate=0 "
            "would freeze the adapters too; leave optimizer.encoder_rate at 1, and choose layers by lora.targets."
        )


def require_start_of_frozen(config: ConfigDict) -> None:
    """Raises ConfigError if what is frozen, or has adapters, keeps random values since no weights are named.

    This is about a training that starts: a published network names no weights of its machine, and needs none.
    """
    o, m = config.optimizer, config.model
    needs = [
        ("lora.rank adds adapters to", config.lora.rank, "lora.rank at 0"),
        ("optimizer.train_only freezes a part of", o.train_only, "optimizer.train_only empty"),
        ("optimizer.encoder_rate=0 freezes the encoder of", not o.encoder_rate, "optimizer.encoder_rate at 1"),
        (
            "optimizer.frozen_norms freezes the statistics of",
            o.frozen_norms != "none",
            "optimizer.frozen_norms at none",
        ),
    ]
    for what, used, otherwise in needs:
        if used and not m.weights and not m.encoder_weights:
            raise ConfigError(
                f"{what} a network that has learned already, but neither model.weights nor model.encoder_weights names "
                f"weights to start from; name some, or leave {otherwise}."
            )
    if o.frozen_norms == "all" and not m.weights:
        raise ConfigError(
            "optimizer.frozen_norms=all freezes the statistics of the decoder too, which model.encoder_weights lacks; "
            "give optimizer.frozen_norms=encoder, or model.weights for the whole network."
        )


def check_quantisation(config: ConfigDict) -> None:
    """Raises ConfigError for activations of few bits beside kernels of float32, or few bits in a generator."""
    c = config.quantise
    if c.activations and not c.weights:
        raise ConfigError(
            f"quantise.activations={c.activations} needs kernels of few bits too, for products of whole numbers: give "
            "--config.quantise.weights=8."
        )
    if c.weights and config.model.name in models.GENERATORS:
        raise ConfigError(
            f"quantise.weights={c.weights} is for networks that segment images; model.name={config.model.name} makes "
            "them."
        )


def require_annealing_within_steps(config: ConfigDict, origin: str = "") -> None:
    """Raises ConfigError unless EoMT's mask annealing ends within `steps`; `origin` says where this number comes from.

    Evaluation is without masks, so that a network whose queries still have some would be scored as another.
    """
    args = config.model.args
    end = args.anneal_end if config.model.name == "eomt" and "anneal_end" in args else 0
    if isinstance(end, int) and end > config.steps:
        raise ConfigError(
            f"model.args.anneal_end is {end}, which must not be above steps={config.steps}{origin}: the network would "
            f"be trained with masks and scored without. Give --config.model.args.anneal_start={config.steps // 5} "
            f"--config.model.args.anneal_end={config.steps * 9 // 10}, a fifth and nine tenths of the steps, as is "
            "usual, or an anneal_end of 0, which keeps the masks."
        )


def check_distillation(config: ConfigDict) -> None:
    """Raises ConfigError if features are compared and the stage has no name."""
    c = config.distill
    if c.teacher and config.semi.method:
        raise ConfigError("semi.method and distill.teacher each have a teacher; give one of them.")
    if c.teacher and c.kind == "feature" and not c.stage:
        raise ConfigError("distill.kind=feature needs distill.stage, the student's features, such as encoder/stage2.")
