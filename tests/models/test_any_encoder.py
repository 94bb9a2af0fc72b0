"""Mask2Former and Semantic FPN over encoders of other families than their papers', plain vision transformers too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.marks import some_slow
from helpers.parity import FAST_COMPILE
from helpers.tiny_models import ENCODERS, TINY
from helpers.variables import drawn, shapes, variable_shapes

from jaxseg import models
from jaxseg.nn import Conv

# The strides that a tiny encoder of the family gives. A ViT of 4x4 patches has a pyramid of 1, 2, 4 and 8.
STRIDES = {"vit_base_dinov2_reg": (1, 2, 4, 8), "convnext_tiny": (4, 8), "mit_b0": (4, 8, 16, 32)}


@pytest.mark.parametrize("encoder", some_slow(STRIDES, {"mit_b0", "convnext_tiny"}))
@pytest.mark.parametrize("name", ["fpn", "mask2former"])
def test_levels_of_any_encoder_are_decoded(name, encoder):
    """At a size that no stride divides; the levels reach the decoder under the encoder's own strides."""
    fields = TINY[name] | {"encoder": encoder, "encoder_args": ENCODERS[encoder]}
    variables, logits, out = shapes(models.build(name, num_classes=3, **fields), (1, 33, 47, 3))
    found = [out[f"encoder/stage{i}"].shape[1:3] for i in range(len(STRIDES[encoder]))]
    assert found == [(-(-33 // s), -(-47 // s)) for s in STRIDES[encoder]]
    assert f"encoder/stage{len(found)}" not in out and logits.shape == (1, 33, 47, 3)
    children = {"encoder", "head", "pyramid"} if encoder.startswith("vit") else {"encoder", "head"}
    assert children <= set(variables["params"]) and ("pyramid" in children) == ("pyramid" in variables["params"])


@pytest.mark.slow  # of the parts, test_vit.py has the values and test_models.py the gradients
def test_semantic_fpn_over_a_vit_trains_its_pyramid():
    """Gradients reach the patches, the last block and each level behind them, which published weights do not fill."""
    args = ENCODERS["vit_base"] | {"depth": 1, "taps": [1]}
    fields = TINY["fpn"] | {"encoder": "vit_base", "encoder_args": args}
    model = models.build("fpn", num_classes=3, **fields)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 13, 3)), jnp.float32)
    variables = drawn(model, image)

    def loss(params):
        logits, _ = model.apply({**variables, "params": params}, image, train=False)
        return jnp.sum(jnp.square(logits))

    gradients = jax.jit(jax.grad(loss), compiler_options=FAST_COMPILE)(variables["params"])
    flat = {"/".join(p.key for p in path): g for path, g in jax.tree_util.tree_flatten_with_path(gradients)[0]}
    for part in ("encoder/stem", "encoder/block1", *(f"pyramid/level{i}" for i in range(4))):
        assert any(np.abs(g).max() > 0 for path, g in flat.items() if path.startswith(part)), part


class _Patches(nn.Module):
    """One level of patches of 4x4 pixels, which gets a pyramid as that of a vision transformer does."""

    pyramid_width, patch, rounding, strides, widths = 4, 4, "up", (4,), (8,)

    @nn.compact
    def __call__(self, x, *, train=False):
        return (Conv(8, kernel_size=4, stride=4, name="patches")(x),)


# Networks that read the own levels of a transformer, or refuse it.
OWN = {"dpt", "eomt", "linear_head", "segmenter", "transunet", "unetr"}
NAMES = sorted(models.with_encoder().keys() - OWN)


@pytest.mark.parametrize("name", some_slow(NAMES, set(NAMES) - {"fpn", "pp_liteseg", "pspnet"}))
def test_a_pyramid_behind_the_encoder_is_a_child_of_its_own(name):
    """Of each network that takes any encoder: none of its own children has the name of the pyramid."""
    fields = {key: value for key, value in TINY[name].items() if not key.startswith("encoder")}
    fields |= {"manet": {"widths": (4, 4, 6)}, "segnet": {"depths": (1, 1, 1, 1)}}.get(name, {})
    model = models.build(name, num_classes=2, **fields)
    params = variable_shapes(model.clone(encoder=_Patches), (1, 32, 32, 3))["params"]
    pyramid = params["levels" if name == "pspnet" else "pyramid"]
    assert set(pyramid) == {f"level{i}" for i in range(4)} and set(params["encoder"]) == {"patches"}
