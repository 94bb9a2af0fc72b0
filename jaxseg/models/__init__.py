"""The architectures, one in each file; a file is imported when its model is built.

A model is a Linen module: `logits, out = model.apply(variables, image, train=False)` with image f[b,h,w,c] and logits
f32[b,h,w,k] at the image's own size, for any h and w. `out["aux"]` is a tuple of auxiliary logits; the other entries
of `out` are the named stages ("encoder/stage0", "decoder/stage0", ...). Parameters have the same names. In the encoder
and in the decoder, stage i is level i of the pyramid, and stage 0 is the finest.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import check
from jaxseg.errors import ArgumentError, nearest
from jaxseg.models import encoders
from jaxseg.models.fields import field_hints, field_names
from jaxseg.nn import KERNEL_INITS, Layers, make_norm
from jaxseg.types import NormFactory

__all__ = [
    "ACTIVATIONS",
    "DTYPES",
    "GENERATORS",
    "MODELS",
    "NEED_ALL_CLASSES",
    "WITHOUT_ENCODER",
    "build",
    "can_generate",
    "names",
    "network_class",
    "with_encoder",
]

# File in this folder (and name in a config) -> class.
_CLASSES = {
    "ann": "ANN",
    "attention_decoder": "AttentionDecoder",
    "attention_unet": "AttentionUNet",
    "autoencoder": "Autoencoder",
    "bisenetv1": "BiSeNetV1",
    "bisenetv2": "BiSeNetV2",
    "ccnet": "CCNet",
    "cnn": "CNN",
    "danet": "DANet",
    "dcgan": "DCGAN",
    "ddrnet": "DDRNet",
    "deeplabv1": "DeepLabV1",
    "deeplabv2": "DeepLabV2",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
    "dpt": "DPT",
    "encnet": "EncNet",
    "encoder_decoder": "EncoderDecoder",
    "enet": "ENet",
    "eomt": "EoMT",
    "erfnet": "ERFNet",
    "fast_scnn": "FastSCNN",
    "fc_densenet": "FCDenseNet",
    "fcn": "FCN",
    "fcn_head": "FCNHead",
    "fpn": "FPN",
    "gcnet": "GCNet",
    "icnet": "ICNet",
    "isanet": "ISANet",
    "knet": "KNet",
    "linear_head": "LinearHead",
    "linknet": "LinkNet",
    "lraspp": "LRASPP",
    "manet": "MANet",
    "mask2former": "Mask2Former",
    "multiresunet": "MultiResUNet",
    "nnunet": "NNUNet",
    "nonlocal_net": "NonLocalNet",
    "ocrnet": "OCRNet",
    "pan": "PAN",
    "pidnet": "PIDNet",
    "pointrend": "PointRend",
    "pp_liteseg": "PPLiteSeg",
    "pspnet": "PSPNet",
    "r2unet": "R2UNet",
    "resunet": "ResUNet",
    "resunetpp": "ResUNetPP",
    "segformer": "SegFormer",
    "segmenter": "Segmenter",
    "segnet": "SegNet",
    "segnext": "SegNeXt",
    "stdc": "STDCSeg",
    "transunet": "TransUNet",
    "u2net": "U2Net",
    "unet": "UNet",
    "unetplusplus": "UNetPlusPlus",
    "unetr": "UNETR",
    "upernet": "UPerNet",
    "vgg_head": "VGGHead",
}
MODELS = tuple(_CLASSES)
GENERATORS = ("dcgan",)
"""Networks that make images from noise; see `can_generate`."""
NEED_ALL_CLASSES = (
    *("enet", "eomt", "erfnet", "fcn", "knet", "linknet", "mask2former", "ocrnet", "pointrend", "segmenter", "u2net"),
)
"""Networks that cannot compute the logits of some classes alone (`nn.of_classes`), which sampled classes need: their
layers read the scores of all classes, end in a transposed convolution, or are masks with a class each. A configuration
that asks it of them is refused by `build.check_sampling`."""
WITHOUT_ENCODER = (*GENERATORS, "bisenetv2", "ddrnet", "enet", "erfnet", "fast_scnn", "icnet", "pidnet")
"""Networks that have no child "encoder", whose features `semi.features` drops."""
ACTIVATIONS = (
    "relu",
    "sigmoid",
    "leaky_relu",
    "relu6",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "hard_swish",
    "softplus",
    "tanh",
)
DTYPES = ("float32", "bfloat16", "float16")


def names() -> tuple[str, ...]:
    """Returns the names that `build` knows."""
    return MODELS


def with_encoder() -> dict[str, str | None]:
    """Returns the networks that take any encoder, in their field `encoder`, each with the name of its default.

    The name is None where the default belongs to the network and has no name. This imports all networks.
    """
    defaults = {name: _default_encoder(_class(name)) for name in MODELS if "encoder" in field_names(_class(name))}
    return {name: None if encoder is None else encoders.name_of(encoder) for name, encoder in defaults.items()}


def network_class(name: str) -> type[nn.Module]:
    """Returns the class of a network by the name of the class, such as "UNet".

    Raises:
        ArgumentError: for an unknown name, with the nearest right one.
    """
    files = {cls: file for file, cls in _CLASSES.items()}
    if name not in files:
        raise ArgumentError(f"There is no network class {name!r}.{nearest(name, files)}")
    return _class(files[name])


def can_generate(model: nn.Module) -> bool:
    """Returns whether a network makes images from noise, by its method `generate(variables, noise)`."""
    return hasattr(model, "generate")


def _default_encoder(cls: Any) -> encoders.EncoderFactory | None:
    return cls.encoder


def _class(name: str) -> type[nn.Module]:
    return getattr(importlib.import_module(f"jaxseg.models.{name}"), _CLASSES[name])


def build(
    name: str,
    *,
    norm: str | NormFactory = "batch",
    norm_args: Mapping[str, Any] | None = None,
    act: str = "relu",
    kernel_init: str = "he_normal",
    dtype: str = "float32",
    axis_name: str | None = None,
    **fields: Any,
) -> nn.Module:
    """Returns the model `name` with every field checked.

    Args:
        name: one of `names()`.
        norm: a name for `jaxseg.nn.make_norm` ("batch", "instance", "group", "layer", "none"), or what it returns.
        norm_args: fields of the norm layers: epsilon; momentum of batch norm, the share of the running statistics that
            a step keeps; num_groups of group norm. They have precedence over what the network's paper has.
        act: one of ACTIVATIONS, functions of `jax.nn`.
        kernel_init: he_normal or he_uniform, the distribution of the initial kernels of the convolutions that belong to
            a norm or an activation (`jaxseg.nn.Layers`). Pretrained weights replace them.
        dtype: compute dtype, one of DTYPES; parameters and logits are float32 in any case.
        axis_name: the mapped axis (of `pmap`, or of micro-batches) over which batch norm is synchronised and along
            which dropout is drawn.
        **fields: fields of the model; lists become tuples. The field `encoder` may be the name of an encoder
            (`encoders.names()`), with fields of that encoder in the dictionary `encoder_args`. What the network
            needs of its default encoder, such as its output stride, holds for it too (`encoders.needs_of`).

    Raises:
        ArgumentError: for an unknown name, field or choice (naming the nearest right one), or a value of the wrong
            type.
    """
    if name not in MODELS:
        raise ArgumentError(f"There is no model {name!r}.{nearest(name, MODELS)}")
    if act not in ACTIVATIONS:
        raise ArgumentError(f"There is no activation {act!r}.{nearest(act, ACTIVATIONS)}")
    if kernel_init not in KERNEL_INITS:
        raise ArgumentError(f"There is no kernel_init {kernel_init!r}.{nearest(kernel_init, KERNEL_INITS)}")
    if not isinstance(norm, str) and not callable(norm):
        raise ArgumentError(f"norm must be the name of a norm, got {norm!r}.")
    if dtype not in DTYPES:
        raise ArgumentError(f"The compute dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    cls = _class(name)
    values = _with_encoder(name, cls, fields)
    known = field_hints(cls) | {"norm": str, "norm_args": dict, "act": str, "kernel_init": str}
    values = check(f"the model {name}", values, known, prefix=f"{name}.")
    if "num_classes" not in values:
        raise ArgumentError(f"Model {name!r} needs num_classes, the number of classes (1: binary).")
    compute = jnp.dtype(dtype).type
    if isinstance(norm, str):
        norm = make_norm(norm, axis_name=axis_name, dtype=compute, **_checked_norm_args(norm, norm_args))
    elif norm_args:
        raise ArgumentError("norm_args needs the name of a norm; give the fields to jaxseg.nn.make_norm instead.")
    common = Layers(norm, getattr(jax.nn, act), compute, axis_name, KERNEL_INITS[kernel_init])
    return cls(**values, common=common)


def _checked_norm_args(norm: str, values: Any) -> dict[str, Any]:
    """Returns `norm_args` as a dictionary without the two arguments of `make_norm` that `build` sets itself."""
    if values is not None and not isinstance(values, Mapping):
        raise ArgumentError(f"norm_args must be a dictionary such as {{'epsilon': 0.001}}, got {values!r}.")
    for name in ("axis_name", "dtype", "name"):
        if values and name in values:
            raise ArgumentError(f"norm_args.{name} is not a field of the norm {norm}; give {name} to the network.")
    return dict(values or {})


def _with_encoder(name: str, cls: type[nn.Module], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces `encoder="name", encoder_args={...}` by a checked `EncoderSpec`.

    What the network needs of its default encoder (`encoders.needs_of`) holds for a named encoder too: a DeepLabV3 over
    ResNet-50 has the output stride and the multi-grid of that over ResNet-101. `encoder_args` has precedence; without a
    name it changes the default encoder.
    """
    fields = dict(fields)
    if "encoder_weights" in fields:
        raise ArgumentError(
            f"{name}.encoder_weights is not an argument of the model {name}: the weights stand beside the model's "
            "arguments, as --config.model.encoder_weights=imagenet, or weights= of create_model."
        )
    if "encoder" not in field_names(cls):
        if "encoder" in fields:
            raise ArgumentError(
                f"{name}.encoder is not an argument of the model {name}, which takes no named encoder; networks that "
                f"take one are {', '.join(with_encoder())}."
            )
        return fields
    arguments = dict(fields.pop("encoder_args")) if "encoder_args" in fields else {}
    default = _default_encoder(cls)
    if "encoder" in fields and isinstance(fields["encoder"], str):
        named = fields["encoder"]
        if isinstance(default, encoders.EncoderSpec):
            arguments = encoders.needs_of(default, named) | arguments
        fields["encoder"] = encoders.factory(named, **arguments)
    elif arguments:
        if "encoder" in fields or not isinstance(default, encoders.EncoderSpec):
            raise ArgumentError(f"Model {name!r}: encoder_args needs encoder, the name of an encoder.")
        fields["encoder"] = default.replace(**arguments)
    return fields
