"""The training step as lowered for a GPU: in half precision, with the channels last, without waiting for the host."""

import jax
import optax
import pytest
from helpers.lowered import exchanges_with_the_host, products, transposes
from helpers.marks import some_slow
from helpers.tiny_adversarial import SEMI
from helpers.tiny_models import ADAPTER, tiny

from jaxseg import losses, models
from jaxseg.adversarial import Discriminator, SegmenterWithDiscriminator
from jaxseg.state import init_state
from jaxseg.step import make_train_step

TERMS = {
    "autoencoder": "cross_entropy + reconstruction",
    "dcgan": "generator + discriminator",
    "encnet": "cross_entropy + 0.2 * semantic_encoding",
    "eomt": "mask_classification",
    "mask2former": "mask_classification",
    "pidnet": "cross_entropy + dice + boundary_awareness",
    "pointrend": "cross_entropy + point_cross_entropy",
    "stdc": "cross_entropy + dice + detail",
}
# How many products of float32 arrays a step has, where it has any: of the resized image (DCGAN), of the encoding, which
# subtracts large distances, and of each image's context (EncNet), of logits that are resized (FCN, PSPNet), of the
# places that attention reads, of the masks' resizing, and in the loss (Mask2Former, EoMT), and of the table of
# positions of a vision transformer (4), and of the factorisation of SegNeXt: 6 for each step, 3 of the last update, one
# before and one behind them, and two of the gradient, which is that of the last update alone. ICNet resizes
# its image, and the logits of three heads. Each of the six exchanges of the ViT-Adapter places and weights its points.
IN_FLOAT32 = {"dcgan": 2, "dpt": 8, "encnet": 12, "eomt": 17, "fcn": 6, "linear_head": 4, "mask2former": 21}
IN_FLOAT32 |= {
    "vit_adapter": 4 + 6 * 2 * 3,
    "icnet": 18,
    "pspnet": 4,
    "segmenter": 4,
    "segnext": 6 * tiny("segnext").steps + 7,
}
HEADS, FEW_CHANNELS, COLUMNS = (0, 2, 1, 3), (0, 1, 3, 2), (0, 3, 1, 2)
# The orders of axes to which maps f[b,h,w,c] and tokens are transposed: heads come before tokens for the products of
# attention, columns before rows for the attention within a column, and a resize that is no whole factor transposes maps
# of few channels, as the samples of points (PointRend) do axes of one. The loss of Mask2Former and EoMT takes the
# images one by one. Points of deformable attention are transposed as those of PointRend are.
TRANSPOSED = {
    "ann": {HEADS},
    "attention_decoder": {HEADS},
    "ccnet": {COLUMNS, HEADS},
    "danet": {HEADS},
    "dcgan": {FEW_CHANNELS},
    "dpt": {HEADS, FEW_CHANNELS},
    "eomt": {HEADS, FEW_CHANNELS, (1, 0, 2, 3), (1, 0, 3, 2), (1, 2, 0, 3), (2, 0, 1, 3)},
    "knet": {HEADS},
    "linear_head": {HEADS},
    "mask2former": {HEADS, FEW_CHANNELS, (1, 0, 2, 3), (1, 0, 3, 2), (2, 0, 1, 3)},
    "nonlocal_net": {HEADS},
    "ocrnet": {HEADS},
    "pan": {FEW_CHANNELS},
    "pointrend": {FEW_CHANNELS},
    "pspnet": {FEW_CHANNELS},
    "segformer": {HEADS},
    "segmenter": {HEADS},
    "vit_adapter": {HEADS, FEW_CHANNELS},
}
NETWORKS = [*models.names(), "vit_adapter"]


def lowered(model, loss, size=32):
    """The training step as lowered for CUDA."""
    tx = optax.adamw(1e-3)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda key: init_state(model, tx, key, (size, size, 3)), key)
    batch = {
        "image": jax.ShapeDtypeStruct((2, size, size, 3), "float32"),
        "label": jax.ShapeDtypeStruct((2, size, size), "uint8"),
    }
    step = jax.jit(make_train_step(model, tx, loss))
    return step.trace(state, batch, key).lower(lowering_platforms=("cuda",)).as_text()


def transposes_of_maps(program):
    """The transposes of f[2,h,w,c] and of f[2,t,n,d]; transposed convolutions unfold their pixels in six axes."""
    return [(order, shape) for order, shape in transposes(program) if len(shape) == 4 and shape[0] == 2]


@pytest.mark.parametrize("name", some_slow(NETWORKS, set(NETWORKS) - {"unet", "pspnet"}))
def test_steps_compute_in_half_precision_with_the_channels_last(name):
    loss = losses.make_loss(TERMS[name] if name in TERMS else "cross_entropy + dice", num_classes=5)
    fields = ADAPTER if name == "vit_adapter" else {}
    program = lowered(tiny("fpn" if fields else name, dtype="bfloat16", **fields), loss)
    found = products(program)
    exceptions = [dtypes for dtypes in found if "f32" in dtypes]
    assert len(exceptions) == (IN_FLOAT32[name] if name in IN_FLOAT32 else 0), exceptions
    assert set(found) <= {("bf16", "bf16"), ("f32", "f32")}, "one of each takes the time of float32"
    allowed = TRANSPOSED[name] if name in TRANSPOSED else set()
    assert {order for order, _ in transposes_of_maps(program)} <= allowed, transposes_of_maps(program)
    assert not exchanges_with_the_host(program)


def test_the_discriminator_computes_in_half_precision():
    model = SegmenterWithDiscriminator(tiny("cnn", 3, dtype="bfloat16"), Discriminator((4, 8), dtype="bfloat16"))
    program = lowered(model, SEMI, size=16)
    assert set(products(program)) == {("bf16", "bf16")}
    assert not transposes_of_maps(program) and not exchanges_with_the_host(program)


def test_a_call_of_python_would_be_found():
    def step(x):
        jax.debug.callback(print, x)
        return x + 1

    with pytest.raises(ValueError, match="platform"):  # no program of another platform can call this process
        jax.jit(step).trace(1.0).lower(lowering_platforms=("cuda",))
