"""Hiera of SAM 2 against timm, and its published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles, parity
from helpers.marks import some_slow
from helpers.variables import count_parameters, drawn, variable_shapes

from jaxseg import pretrained
from jaxseg.models import encoders
from jaxseg.models.encoders.hiera import Hiera
from jaxseg.pretrained import hiera as rules
from jaxseg.pretrained.renaming import unknown_names

DEPTHS = (1, 1, 3)
FIELDS = {"widths": (4, 8, 16), "depths": DEPTHS, "heads": (1, 2, 4), "windows": (8, 4, 6), "whole": (4,)}
SMALL = {**FIELDS, "grid": (5, 7), "drop_path": 0.0}


def theirs():
    form = {"embed_dim": 4, "stages": DEPTHS, "q_pool": 2, "window_spec": (8, 4, 6), "global_att_blocks": (3,)}
    return oracles.timm().create_model("sam2_hiera_tiny", **form, global_pos_size=(5, 7))


def test_pyramid_and_gradients_are_timms():
    """At a size at which the windows of 6 need zeros; timm takes whole windows of the first stage alone."""
    torch, module = oracles.torch(), theirs()
    parity.draw(module)
    form, encoder = rules.rules(DEPTHS), Hiera(**SMALL)
    variables, x = parity.load(encoder, module, form), parity.images(64, 96)
    levels = [y.permute(0, 3, 1, 2) for y in intermediates(module, x)]
    weights = [torch.randn(level.shape) for level in levels]
    sum((level * weight).mean() for level, weight in zip(levels, weights)).backward()

    def loss(params):
        pyramid = encoder.apply({"params": params}, x, train=True)
        return sum(jnp.mean(level * parity.nhwc(weight)) for level, weight in zip(pyramid, weights)), pyramid

    gradient = jax.jit(jax.grad(loss, has_aux=True), compiler_options=parity.FAST_COMPILE)
    found, pyramid = gradient(variables["params"])
    for ours, level in zip(pyramid, levels, strict=True):
        parity.assert_close(ours, parity.nhwc(level))
    named = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
    found, expected = pretrained.flatten({"params": found}), pretrained.convert(named, form)
    largest = max(np.abs(g).max() for g in expected.values())
    assert set(found) == set(expected)
    for path, g in expected.items():
        assert np.abs(found[path] - g).max() <= 1e-3 * np.abs(g).max() + 1e-5 * largest, path


def intermediates(module, x):
    return module.forward_intermediates(parity.nchw(x), intermediates_only=True, output_fmt="NHWC")


def test_an_image_of_any_size_is_padded():
    """The levels are those of the image with zeros at its end, up to the size that the stride gives."""
    sizes = {"widths": (4, 8), "depths": (1, 1), "heads": (1, 2), "windows": (4, 2), "whole": (0,)}
    encoder, x = Hiera(**SMALL | sizes), parity.images(37, 50)
    variables = drawn(encoder, x)
    run = jax.jit(encoder.apply, compiler_options=parity.FAST_COMPILE)
    found, padded = run(variables, x), run(variables, np.pad(x, ((0, 0), (0, 3), (0, 6), (0, 0))))
    for stride, ours, whole in zip(encoder.strides, found, padded, strict=True):
        size = -(-37 // stride), -(-50 // stride)
        assert ours.shape[1:3] == size
        np.testing.assert_allclose(ours, whole[:, : size[0], : size[1]], rtol=1e-5, atol=1e-5)


# Entries of files of SAM 2.1 outside the trunk: all of those without children, and of each other part one.
OUTSIDE = ("maskmem_tpos_enc", "no_mem_embed", "no_mem_pos_enc", "no_obj_ptr", "no_obj_embed_spatial")
OUTSIDE += ("mask_downsample.weight", "mask_downsample.bias", "obj_ptr_proj.layers.0.weight", "obj_ptr_tpos_proj.bias")
OUTSIDE += ("image_encoder.neck.convs.0.conv.weight", "memory_attention.layers.0.norm1.weight")
OUTSIDE += ("memory_encoder.out_proj.weight", "sam_prompt_encoder.no_mask_embed.weight")
OUTSIDE += ("sam_mask_decoder.iou_token.weight", "sam_mask_decoder.transformer.layers.0.norm1.bias")


def test_names_of_other_networks_stay_unknown():
    """Else nothing would be said of them, and no wrapper be taken off."""
    names = [f"model.{name}" for name in ("blocks.0.norm1.weight", "image_encoder.trunk.pos_embed", *OUTSIDE)]
    names += ["conv1.weight", "image_encoder.trunk.conv.weight", "blocks.0.gamma"]
    assert unknown_names(names, rules.rules(DEPTHS)) == names


COUNTS = {"tiny": 26_849_472, "small": 33_947_328, "base_plus": 68_675_712, "large": 212_149_296}


@pytest.mark.parametrize("size", some_slow(COUNTS, set(COUNTS) - {"tiny"}))
def test_published_weights_fit(size):
    """By the shapes, under the names of timm, whose repositories they are, and those of SAM 2's files."""
    torch, name = oracles.torch(), f"sam2_hiera_{size}"
    with torch.device("meta"):
        module = oracles.timm().create_model(name)
    state = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in module.state_dict().items()}
    encoder, form = encoders.build(name), rules.rules(rules._DEPTHS[size])
    variables = variable_shapes(encoder, (1, 64, 64, 3))
    pretrained.merge(variables, pretrained.convert(state, form))
    trunk = {key.replace("mlp.fc", "mlp.layers."): x for key, x in state.items() if not key.startswith("head.")}
    trunk = {key.replace("layers.1", "layers.0").replace("layers.2", "layers.1"): x for key, x in trunk.items()}
    trunk = {f"image_encoder.trunk.{key}": x for key, x in trunk.items()}
    pretrained.merge(variables, pretrained.convert(trunk | dict.fromkeys(OUTSIDE, np.ones(1)), form))
    assert count_parameters(encoder) == COUNTS[size]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"windows": (8, 4)}, r"windows \(8, 4\) must be as many as widths"),
        ({"windows": (7, 4, 6)}, "need an even side, got 7"),
        ({"heads": (1, 3, 4)}, "attention of 8 features cannot have 3 heads"),
        ({"whole": (6,)}, r"whole \(6,\) must be blocks, 1 to 5, or 0 alone for none"),
        ({"whole": (0, 4)}, r"whole \(0, 4\) must be blocks, 1 to 5, or 0 alone for none"),
    ],
)
def test_fields_that_do_not_fit_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(Hiera(**SMALL | fields).init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
