"""The configuration keys: one row each, with the default, the meaning and what the value must be."""

from typing import Annotated, Any, Literal, NamedTuple

from jaxseg.arguments import (
    BelowOne,
    Boundaries,
    Count,
    Finite,
    NotNegative,
    Positive,
    ScheduleName,
    Share,
    Size,
    SizeOrNone,
    StrategyName,
    Tiles,
    Where,
    WholeNotNegative,
    Zoom,
    bare,
    describe,
    one_or_more,
    within,
)

# A tuple such as a size is checked as a whole: an invalid one may be set and then overridden, as any other value.
Color = Annotated[
    tuple[int, int, int],
    Where(lambda v: 0 <= min(v) <= max(v) < 256, instead="colours (red, green, blue) of whole numbers from 0 to 255"),
]
Numbers = Annotated[
    tuple[float, ...], Where(lambda v: all(abs(x) < float("inf") for x in v), instead="a tuple of finite numbers")
]
PositiveNumbers = Annotated[
    tuple[float, ...], Where(lambda v: all(0 < x < float("inf") for x in v), instead="a tuple of numbers above 0")
]
Widths = Annotated[tuple[Count, ...], one_or_more("whole numbers of at least 1")]


class Key(NamedTuple):
    """One configuration key.

    Attributes:
        default: its value where no experiment sets it.
        meaning: what it does, for `--help`.
        kind: annotation that says what its value must be (see `jaxseg.arguments`); None: any of the default's type.
        free: whether a resumed run may change it: it changes no number of a run, or, as compile.options, no more than
            another version of XLA does. (`remat` changes last bits.)
    """

    default: Any
    meaning: str
    kind: Any = None
    free: bool = False

    @property
    def hint(self) -> Any:
        """The annotation of its value."""
        if self.kind is None:
            return Finite if isinstance(self.default, float) else type(self.default)
        return self.kind

    @property
    def type(self) -> Any:
        """The type of its value: str, or tuple[str, ...]."""
        return bare(self.hint)

    @property
    def expected(self) -> str:
        """The words that complete "must be ..."."""
        return describe(self.hint)


KEYS: dict[str, Key] = {
    "seed": Key(
        0,
        "base seed: initialisation, data order, augmentation and dropout all derive from it",
        Annotated[int, within(0, 2**32 - 1)],
    ),
    "steps": Key(1000, "optimiser steps of the whole run", Count),
    "epochs": Key(
        0.0,
        "length of the whole run in epochs, in place of `steps`: one is every training image once, images / batch_size "
        "steps (12 and 0.5 are possible values); 0: `steps` holds",
        NotNegative,
    ),
    "batch_size": Key(16, "images a step, over all hosts, devices and micro-batches", Count),
    "accumulate": Key(1, "micro-batches a step; gradients are those of the whole batch", Count),
    "strategy": Key(
        "jit", "how the step is compiled: jit (one program over a mesh of all devices) or pmap", StrategyName
    ),
    "dtype": Key(
        "float32",
        "compute dtype: float32 or bfloat16 (parameters, logits and losses stay float32)",
        Literal["float32", "bfloat16"],
    ),
    "compile.options": Key(
        {},
        "XLA options that differ from jaxseg.compiler.OPTIONS, for strategy=jit; None: the default of XLA",
        free=True,
    ),
    "compile.cache": Key(
        "",
        "folder that keeps compiled programs for the next run; empty: ~/.cache/jaxseg/xla; off: none is kept",
        free=True,
    ),
    "remat": Key(
        False,
        "keep only the outputs of the stages of the network for the backward pass, and recompute the rest: "
        "less memory, up to a third more time",
    ),
    "model.name": Key("resunet", "architecture, see jaxseg/models"),
    "model.num_classes": Key(0, "0: as many as the data has; 1: binary, one sigmoid logit", WholeNotNegative),
    "model.args": Key(
        {},
        "fields of the architecture that differ from its defaults; also norm, norm_args, act, kernel_init and "
        "encoder_args",
    ),
    "model.crf": Key(
        "",
        "a dense CRF that refines the logits inside the network and learns with it (nn.DenseCRF): a preset "
        "(nn.CRF_PRESETS), fields such as appearance_weight=5,learn=false, or a preset and fields; empty: none",
    ),
    "model.weights": Key(
        "",
        "weights that the whole network starts from: a file (.safetensors, .pth, .npz), the workdir of a run,"
        " a name or hf://OWNER/NAME[@REVISION]; a classifier for other classes is left out",
    ),
    "model.encoder_weights": Key(
        "",
        "weights that the encoder starts from: imagenet, or as for model.weights; they expect the default "
        "data.mean and data.std",
    ),
    "model.weights_skip": Key(
        (),
        "regular expressions of parameters that keep their initial values, and of names in the weights that "
        "are left out; each must match something",
        tuple[str, ...],
    ),
    "data.source": Key("shapes", "shapes, folder, camvid, voc2012, oxford_iiit_pet, cityscapes or scene_parse150"),
    "data.dir": Key("", "where the data is: the folder, or the raw download of a data set", free=True),
    "data.cache": Key("", "folder that keeps prepared TFDS data sets; empty: ~/.cache/jaxseg/tfds", free=True),
    "data.train_split": Key("train", "split to train on; TFDS slices such as train[:90%] work for TFDS sources"),
    "data.val_split": Key("val", "split that the evaluations during training score"),
    "data.size": Key((64, 64), "height and width of the images in training, before augment.crop", Size),
    "data.fit": Key(
        "resize",
        "how an image gets data.size: resize (also in evaluation), or crop (evaluation at native size)",
        Literal["resize", "crop"],
    ),
    "data.channels": Key(
        3, "image channels that the network takes; files are converted to 1, 3 or 4", Literal[1, 3, 4]
    ),
    "data.mean": Key(
        (0.485, 0.456, 0.406), "subtracted from images in [0, 1]; one number, or one per channel", Numbers
    ),
    "data.std": Key((0.229, 0.224, 0.225), "divides after the mean; one number, or one per channel", PositiveNumbers),
    "data.classes": Key(
        (),
        "class names; empty: those of the data. Names that differ from those of the data are an error",
        tuple[str, ...],
    ),
    "data.ignore": Key(-1, "mask value that becomes ignore, besides 255; -1: none", Annotated[int, within(-1, 65535)]),
    "data.palette": Key(
        (), "RGB colour of each class, for masks stored as colour: ((r, g, b), ...)", tuple[Color, ...]
    ),
    "data.val_fraction": Key(
        0.1,
        "share of a folder without splits that is held out for validation",
        Annotated[float, Where(lambda v: 0 < v < 1, "between 0 and 1")],
    ),
    "data.division": Key(
        "stable",
        "which images of a folder without splits are held out: stable (about data.val_fraction, by name; adding images "
        "moves none), or former (exactly data.val_fraction, as before 0.2, which took splits inside images/ for names)",
        Literal["stable", "former"],
    ),
    "data.unlabelled": Key(
        "",
        "folder of images without masks, inside data.dir or elsewhere, that training also reads: for "
        "adversarial.semi_weight, adversarial.unlabelled_weight and the loss terms reconstruction, generator and "
        "discriminator; empty: none",
    ),
    "data.shapes_train": Key(2048, "images in the train split of the shapes data", Count),
    "data.shapes_val": Key(256, "images in the val and test splits of the shapes data", Count),
    "data.workers": Key(
        0, "worker processes that read and decode; 0: threads of this process", WholeNotNegative, free=True
    ),
    "data.prefetch": Key(2, "batches prepared ahead of the step", WholeNotNegative, free=True),
    "augment.flip_horizontal": Key(0.5, "probability of mirroring left-right", Share),
    "augment.flip_vertical": Key(0.0, "probability of mirroring top-bottom", Share),
    "augment.zoom": Key((1.0, 1.0), "range of the scale factor (above 1 magnifies)", Zoom),
    "augment.shear": Key(0.0, "largest shear, as a tangent (0.2: up to 11 degrees either way)", NotNegative),
    "augment.rotate": Key(0.0, "largest rotation in degrees, either way", NotNegative),
    "augment.crop": Key((), "size (height, width) of a random crop, after the geometry; empty: none", SizeOrNone),
    "augment.crop_max_share": Key(1.0, "a crop in which one class covers more than this share is drawn again", Share),
    "augment.brightness": Key(0.0, "largest relative change of brightness", Share),
    "augment.contrast": Key(0.0, "largest relative change of contrast", Share),
    "augment.saturation": Key(0.0, "largest relative change of saturation (3-channel images)", Share),
    "loss.terms": Key("cross_entropy", 'weighted sum of losses, such as "cross_entropy + 0.5 * dice"'),
    "loss.class_weights": Key("", "empty: none; median_frequency: from the training data; or numbers: 1,2.5,1"),
    "loss.label_smoothing": Key(0.0, "label smoothing of the cross-entropy, in [0, 1)", BelowOne),
    "loss.aux_weight": Key(0.4, "weight of each auxiliary head's loss", NotNegative),
    "loss.aux_weights": Key(
        (),
        "a weight for each auxiliary head, such as 0.5,0.25,0.125; empty: loss.aux_weight for all",
        tuple[NotNegative, ...],
    ),
    "loss.args": Key({}, "arguments of single terms: {'dice': {'squared': False}}"),
    "adversarial.weight": Key(
        0.0, "weight of the loss by a discriminator of label maps (0.01, say); 0: no discriminator", NotNegative
    ),
    "adversarial.learning_rate": Key(
        0.0001, "peak learning rate of the discriminator's Adam, under the same schedule", Positive
    ),
    "adversarial.widths": Key(
        (64, 128, 256, 512), "channels of the discriminator's convolutions, each of stride 2", Widths
    ),
    "adversarial.image": Key(False, "the discriminator sees the image beside the label map"),
    "adversarial.truth_scaling": Key(
        0.0,
        "the discriminator's true maps: predicted probabilities with the true class raised to at least this; "
        "0: one-hot",
        Share,
    ),
    "adversarial.unlabelled_weight": Key(
        0.0,
        "weight of the discriminator's loss for images whose labels are all ignored (0.001, say)",
        NotNegative,
    ),
    "adversarial.semi_weight": Key(
        0.0,
        "weight of the cross-entropy with the predicted classes, for images whose labels are all ignored (0.1, say)",
        NotNegative,
    ),
    "adversarial.semi_threshold": Key(
        0.2, "the predicted classes count where the discriminator's probability is above this", Share
    ),
    "adversarial.unlabelled_from": Key(
        0,
        "step from which images whose labels are all ignored count (a quarter of the run, say)",
        WholeNotNegative,
    ),
    "optimizer.name": Key("adamw", "sgd (with momentum), adam, adamw, rmsprop, or any optimiser of optax by its name"),
    "optimizer.learning_rate": Key(0.001, "peak learning rate", Positive),
    "optimizer.weight_decay": Key(
        0.0001,
        "decoupled where the optimiser has decay with a mask (adamw, lamb, lion), else L2; "
        "norms and biases are left out",
        NotNegative,
    ),
    "optimizer.momentum": Key(0.9, "momentum of sgd (of rmsprop: optimizer.args.momentum, default 0)", BelowOne),
    "optimizer.clip": Key(0.0, "largest global norm of the gradient; 0: no clipping", NotNegative),
    "optimizer.encoder_rate": Key(
        1.0, "factor on the encoder's learning rate: 0.1 to fine-tune, 0 freezes its parameters", NotNegative
    ),
    "optimizer.args": Key({}, "further arguments of the optax optimiser"),
    "schedule.name": Key("poly", "constant, poly, cosine, exponential or step", ScheduleName),
    "schedule.power": Key(0.9, "exponent of poly", Positive),
    "schedule.warmup": Key(0, "steps of linear warm-up, part of `steps`", WholeNotNegative),
    "schedule.end": Key(0.0, "final learning rate as a share of the peak (poly, cosine, exponential)", Share),
    "schedule.boundaries": Key((), "steps at which the step schedule multiplies by schedule.factor", Boundaries),
    "schedule.factor": Key(0.1, "factor of the step schedule", Positive),
    "ema.decay": Key(0.0, "decay of the moving average of the parameters that evaluation then uses; 0: none", BelowOne),
    "eval.every": Key(200, "steps between evaluations; the last step is always evaluated", Count),
    "eval.batch_size": Key(16, "images an evaluation step, over all hosts and devices", Count, free=True),
    "eval.multiple": Key(
        1, "data.fit=crop: native sizes are padded to a multiple of this, so that fewer sizes compile", Count
    ),
    "eval.tiles": Key(
        "",
        "HxW: images are scored in overlapping tiles of this height and width, at their own scale; empty: whole",
        Tiles,
        free=True,
    ),
    "eval.overlap": Key(
        0.5, "the share of the side of a tile of eval.tiles that is in the next too", BelowOne, free=True
    ),
    "checkpoint.every": Key(200, "steps between checkpoints; the last step is always saved", Count),
    "checkpoint.keep": Key(2, "newest checkpoints kept, besides the best by validation mIoU", Count, free=True),
    "log.every": Key(20, "steps between log lines", Count, free=True),
    "log.images": Key(4, "validation images drawn in predictions.png and TensorBoard", WholeNotNegative, free=True),
    "log.tensorboard": Key(True, "write TensorBoard event files", free=True),
    "log.gradients": Key(
        False,
        "write the norm of each parameter's gradient at the first step and the log steps to gradients.jsonl, "
        "and draw it by layer",
    ),
}

# Keys whose values are arguments of something else, and which hold any names.
FREE_FORM = tuple(name for name, key in KEYS.items() if isinstance(key.default, dict))

# Keys that a resumed run may change.
FREE_KEYS = tuple(name for name, key in KEYS.items() if key.free)

# Keys that an evaluation may change, if the parameters of the network stay the same: where its strides become dilation.
LAYOUT_KEYS = (
    "model.args.encoder_args.output_stride",
    "model.args.encoder_args.multi_grid",
    "model.args.rates",
    "model.args.rate",
)

# Former names of keys in the configurations of stored runs.
RENAMED = {
    "adversarial.soften": "adversarial.truth_scaling",
    "adversarial.taught_weight": "adversarial.semi_weight",
    "adversarial.threshold": "adversarial.semi_threshold",
}

# The number of the form in which configurations are stored. 1: before a network's needs of its encoder (its holes,
# levels, taps and up-sampling) held for an encoder that is given by name, and with the momentum of sgd for rmsprop.
# 2: before data.division, when folders were divided as by its value "former".
FORMAT = 3
# Network -> (part of the names of the encoders that have the fields, what these were for an encoder by name in form 1).
ENCODER_FIELDS_OF_FORM_1 = {
    "deeplabv3": ("resn", {"multi_grid": (1, 1, 1), "first_dilated": False}),
    "deeplabv3plus": ("resn", {"multi_grid": (1, 1, 1), "first_dilated": False}),
    "fcn": ("vgg", {"levels": "convolved"}),
    "lraspp": ("mobilenet_v3", {"tap": "last"}),
    "ocrnet": ("hrnet", {"upsample": "nearest"}),
}
