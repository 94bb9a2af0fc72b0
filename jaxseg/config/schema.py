"""Every key of a configuration, with its default and its meaning; what its values may be."""

from typing import Any

# Dotted key -> (default, meaning). The type of the default is the type of the key; `()` is a tuple of any length.
KEYS: dict[str, tuple[Any, str]] = {
    "seed": (0, "base seed: initialisation, data order, augmentation and dropout all derive from it"),
    "steps": (1000, "optimiser steps of the whole run"),
    "batch_size": (16, "images a step, over all hosts, devices and micro-batches"),
    "accumulate": (1, "micro-batches a step; gradients are those of the whole batch"),
    "strategy": ("jit", "how the step is compiled: jit (one program over a mesh of all devices) or pmap"),
    "dtype": ("float32", "compute dtype: float32 or bfloat16 (parameters, logits and losses stay float32)"),
    "compile.options": (
        {},
        "XLA options that differ from jaxseg.compiler.OPTIONS, for strategy=jit; None: XLA's own default",
    ),
    "compile.cache": (
        "",
        "folder where compiled programs are kept for the next run; empty: ~/.cache/jaxseg/xla; the word off: none are",
    ),
    "remat": (
        False,
        "keep for the backward pass only what passes between the stages of the network, and compute the rest anew: "
        "less memory, up to a third more time",
    ),
    "model.name": ("resunet", "architecture, see jaxseg/models"),
    "model.num_classes": (0, "0: as many as the data has; 1: binary, one sigmoid logit"),
    "model.args": ({}, "fields of the architecture that differ from its defaults"),
    "model.weights": (
        "",
        "weights that the whole network starts from: a file (.safetensors, .pth, .npz), the workdir of a run, a name "
        "or hf://OWNER/NAME[@REVISION]; a classifier for other classes is left out",
    ),
    "model.encoder_weights": (
        "",
        "weights that the encoder starts from: imagenet, or as for model.weights; they expect the default data.mean "
        "and data.std",
    ),
    "model.weights_skip": (
        (),
        "regular expressions of parameters that stay as made, and of names that the weights hold besides; each must be "
        "found",
    ),
    "data.source": ("shapes", "shapes, folder, camvid, voc2012, oxford_iiit_pet, cityscapes or scene_parse150"),
    "data.dir": ("", "where the data is: the folder, or the raw download of a data set"),
    "data.cache": ("", "where prepared TFDS data sets are kept; empty: ~/.cache/jaxseg/tfds"),
    "data.train_split": ("train", "split to train on; TFDS slices such as train[:90%] work for TFDS sources"),
    "data.val_split": ("val", "split that the evaluations during training score"),
    "data.size": ((64, 64), "height and width of what the network sees in training, before augment.crop"),
    "data.fit": (
        "resize",
        "how an image gets data.size: resize (also in evaluation), or crop (evaluation at native size)",
    ),
    "data.channels": (3, "image channels that the network takes; files are converted to 1, 3 or 4"),
    "data.mean": ((0.485, 0.456, 0.406), "subtracted from images in [0, 1]; one number, or one per channel"),
    "data.std": ((0.229, 0.224, 0.225), "divides after the mean; one number, or one per channel"),
    "data.classes": ((), "class names; empty: those of the data. Given and different: an error"),
    "data.ignore": (-1, "raw mask value that counts nowhere, besides 255; -1: none"),
    "data.palette": ((), "RGB colour of each class, for masks stored as colour: ((r, g, b), ...)"),
    "data.val_fraction": (0.1, "share of a folder without splits that is held out for validation"),
    "data.shapes_train": (2048, "images in the train split of the shapes data"),
    "data.shapes_val": (256, "images in the val and test splits of the shapes data"),
    "data.workers": (0, "worker processes that read and decode; 0: threads of this process"),
    "data.prefetch": (2, "batches made ahead of the step"),
    "augment.flip_horizontal": (0.5, "probability of mirroring left-right"),
    "augment.flip_vertical": (0.0, "probability of mirroring top-bottom"),
    "augment.zoom": ((1.0, 1.0), "range of the scale factor (above 1 magnifies)"),
    "augment.shear": (0.0, "largest shear, as a tangent (0.2: up to 11 degrees either way)"),
    "augment.rotate": (0.0, "largest rotation in degrees, either way"),
    "augment.crop": ((), "random crop (height, width) taken after the geometry; empty: none"),
    "augment.crop_max_share": (1.0, "a crop in which one class covers more than this share is drawn again"),
    "augment.brightness": (0.0, "largest relative change of brightness"),
    "augment.contrast": (0.0, "largest relative change of contrast"),
    "augment.saturation": (0.0, "largest relative change of saturation (3-channel images)"),
    "loss.terms": ("cross_entropy", 'weighted sum of losses, such as "cross_entropy + 0.5 * dice"'),
    "loss.class_weights": ("", "empty: none; median_frequency: from the training data; or numbers: 1,2.5,1"),
    "loss.label_smoothing": (0.0, "label smoothing of the cross-entropy, in [0, 1)"),
    "loss.aux_weight": (0.4, "weight of each auxiliary head's loss"),
    "loss.aux_weights": (
        (),
        "a weight for each auxiliary head, such as 0.5,0.25,0.125; empty: loss.aux_weight for all",
    ),
    "loss.args": ({}, "arguments of single terms: {'dice': {'squared': False}}"),
    "adversarial.weight": (0.0, "weight of the loss by a discriminator of label maps (0.01, say); 0: no discriminator"),
    "adversarial.learning_rate": (1e-4, "peak learning rate of the discriminator's Adam, under the same schedule"),
    "adversarial.widths": ((64, 128, 256, 512), "channels of the discriminator's convolutions, each of stride 2"),
    "adversarial.image": (False, "the discriminator sees the image beside the label map"),
    "adversarial.truth_scaling": (0.0, "true maps are predicted ones with the true class raised to this; 0: one-hot"),
    "adversarial.unlabelled_weight": (0.0, "weight of that loss for images whose labels are all ignored (0.001, say)"),
    "adversarial.semi_weight": (0.0, "weight of cross-entropy with the own classes of such images (0.1, say)"),
    "adversarial.semi_threshold": (0.2, "where the discriminator's probability is above this, own classes teach"),
    "adversarial.unlabelled_from": (0, "steps before such images teach (a quarter of the run, say)"),
    "optimizer.name": ("adamw", "sgd (with momentum), adam, adamw, rmsprop, or any optimiser of optax by its name"),
    "optimizer.learning_rate": (1e-3, "peak learning rate"),
    "optimizer.weight_decay": (1e-4, "decoupled for adamw, L2 otherwise; never on norms and biases"),
    "optimizer.momentum": (0.9, "momentum of sgd and rmsprop"),
    "optimizer.clip": (0.0, "largest global norm of the gradient; 0: no clipping"),
    "optimizer.encoder_rate": (
        1.0,
        "factor on the encoder's learning rate: 0.1 to fine-tune, 0 freezes its parameters",
    ),
    "optimizer.args": ({}, "further arguments of the optax optimiser"),
    "schedule.name": ("poly", "constant, poly, cosine or step"),
    "schedule.power": (0.9, "exponent of poly"),
    "schedule.warmup": (0, "steps of linear warm-up, part of `steps`"),
    "schedule.end": (0.0, "final learning rate as a share of the peak (poly, cosine)"),
    "schedule.boundaries": ((), "steps at which the step schedule multiplies by schedule.factor"),
    "schedule.factor": (0.1, "factor of the step schedule"),
    "ema.decay": (0.0, "decay of the moving average of the parameters that evaluation then uses; 0: none"),
    "eval.every": (200, "steps between evaluations; the last step is always evaluated"),
    "eval.batch_size": (16, "images an evaluation step, over all hosts and devices"),
    "eval.multiple": (1, "data.fit=crop: native sizes are filled up to a multiple of this, so that fewer compile"),
    "checkpoint.every": (200, "steps between checkpoints; the last step is always saved"),
    "checkpoint.keep": (2, "newest checkpoints kept, besides the best by validation mIoU"),
    "log.every": (20, "steps between log lines"),
    "log.images": (4, "validation images drawn in predictions.png and TensorBoard"),
    "log.tensorboard": (True, "write TensorBoard event files"),
    "log.gradients": (
        False,
        "write the norm of each parameter's gradient at the first step and the log steps to gradients.jsonl, and draw "
        "it by layer",
    ),
}

CHOICES: dict[str, tuple[str, ...]] = {
    "strategy": ("jit", "pmap"),
    "dtype": ("float32", "bfloat16"),
    "data.fit": ("resize", "crop"),
    "schedule.name": ("constant", "poly", "cosine", "step"),
}

# Keys that change nothing about the numbers of a run, or (compile.options) no more than another version of XLA does: a
# resumed run may differ in them. `remat` changes last bits.
FREE_KEYS = ("compile.cache", "compile.options", "data.dir", "data.cache", "data.workers", "data.prefetch", "log.every",
             "log.images", "log.tensorboard", "checkpoint.keep", "eval.batch_size")  # fmt: skip

# What keys were called in configurations that are stored with runs.
RENAMED = {
    "adversarial.soften": "adversarial.truth_scaling",
    "adversarial.taught_weight": "adversarial.semi_weight",
    "adversarial.threshold": "adversarial.semi_threshold",
}

FREE_FORM = ("model.args", "loss.args", "optimizer.args", "compile.options")
