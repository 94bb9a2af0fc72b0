"""The configuration keys: one row each, with the default, the meaning and what the value must be."""

from typing import Annotated, Any, Literal

from jaxseg.arguments import BelowOne, Count, Memory, NotNegative, StrategyName, Tiles, Where, WholeNotNegative, within
from jaxseg.config.key import Key
from jaxseg.config.keys_of_data import DATA
from jaxseg.config.keys_of_training import TRAINING
from jaxseg.config.keys_of_tuning import TUNING

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
        "jit", "how the step is compiled: jit (one program over a mesh of all devices) or pmap", StrategyName, free=True
    ),
    "mesh.data": Key(
        -1,
        "devices that the images of a batch are split over, for strategy=jit; -1: those that mesh.fsdp and mesh.space "
        "leave",
        Annotated[int, Where(lambda v: v == -1 or v >= 1, instead="-1 or a whole number of at least 1")],
        free=True,
    ),
    "mesh.fsdp": Key(
        1,
        "devices that the parameters, their average and the optimiser's state are split over, and the images of a "
        "batch too",
        Count,
        free=True,
    ),
    "mesh.space": Key(
        1,
        "devices that the rows of each image are split over, for images too large for one device",
        Count,
        free=True,
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
    "compile.deterministic": Key(
        False,
        "the same bits in every run on a GPU, where some operations are slower then; a CPU and a TPU give them anyway",
        free=True,
    ),
    "compile.memory": Key(
        "",
        "memory that a compiled step may take, which is checked before it runs: an amount, such as 6GB; empty: what is "
        "free; off: it is not checked",
        Memory,
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
    "model.head": Key(
        "linear",
        "the layer that gives the logits: linear, or cosine (of a pixel's features with a learned code of each class, "
        "times a learned factor: nn.WithCosineHead)",
        Literal["linear", "cosine"],
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
    "model.weights_checkpoint": Key(
        "best",
        "which checkpoint of a run these are read from, if they name a run: best (by validation mIoU), or last",
        Literal["best", "last"],
    ),
    "model.weights_skip": Key(
        (),
        "regular expressions of parameters that keep their initial values, and of names in the weights that "
        "are left out; each must match something",
        tuple[str, ...],
    ),
    **DATA,
    **TRAINING,
    **TUNING,
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
    "checkpoint.copy_to": Key(
        "",
        "a folder or bucket (gs://BUCKET/RUN, s3://BUCKET/RUN) that gets a copy of each checkpoint, from which an "
        "empty workdir goes on; empty: none",
        free=True,
    ),
    "log.every": Key(20, "steps between log lines", Count, free=True),
    "log.images": Key(4, "validation images drawn in predictions.png and TensorBoard", WholeNotNegative, free=True),
    "log.tensorboard": Key(True, "write TensorBoard event files", free=True),
    "log.progress": Key(
        "auto",
        "what the console shows of the steps: auto (a live display on a terminal, lines elsewhere), lines (for each "
        "log step), none",
        Literal["auto", "lines", "none"],
        free=True,
    ),
    "log.trackers": Key(
        (),
        "trackers that get the numbers too: wandb (Weights & Biases), mlflow; each needs its client",
        tuple[Literal["wandb", "mlflow"], ...],
        free=True,
    ),
    "log.project": Key(
        "",
        "project of wandb, or experiment of mlflow, that the run belongs to; empty: that of the client's environment "
        "variables, else jaxseg",
        free=True,
    ),
    "log.report": Key(False, "write report.html, a page of curves and scores, after each evaluation", free=True),
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
# 2: before data.division, when folders were divided as by its value "former". 3: before data.val_group, when
# data.val_fraction held out single images. 4: before the levels of the encoder `residual` had norms.
FORMAT = 5
# (Last form, networks or None for all, names of encoders as a pattern of `fnmatch`, what these fields were until then.)
FORMER_ENCODER_FIELDS: tuple[tuple[int, tuple[str, ...] | None, str, dict[str, Any]], ...] = (
    (1, ("deeplabv3", "deeplabv3plus"), "*resn*", {"multi_grid": (1, 1, 1), "first_dilated": False}),
    (1, ("fcn",), "*vgg*", {"levels": "convolved"}),
    (1, ("lraspp",), "*mobilenet_v3*", {"tap": "last"}),
    (1, ("ocrnet",), "*hrnet*", {"upsample": "nearest"}),
    (4, None, "residual", {"output_norm": False}),
)
