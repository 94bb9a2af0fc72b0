"""Attention maps of every kind, against the weights that the networks compute or their formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.tiny_models import tiny
from helpers.variables import drawn, initialised, shapes

from jaxseg import models
from jaxseg.explain.attention import attention_maps
from jaxseg.nn import MultiHeadAttention

SHAPE = (1, 16, 24, 3)
IMAGE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
PIXEL = np.zeros(SHAPE[1:3], np.float32)
PIXEL[9, 20] = 1.0


@functools.cache
def compiled(model, class_index):
    return jax.jit(lambda v, p: attention_maps(model, v, IMAGE, p, class_index))


def maps_of(model, variables, pixels=PIXEL, class_index=1):
    return {name: np.asarray(values) for name, values in compiled(model, class_index)(variables, pixels).items()}


def test_self_attention_is_the_row_of_the_pixel():
    model = tiny("attention_decoder")
    variables = drawn(model, IMAGE)
    maps = maps_of(model, variables)
    stored = jax.jit(lambda v: model.clone(sow_attention=True).apply(v, IMAGE, mutable=["intermediates"])[1])(variables)
    decoder = stored["intermediates"]["decoder"]
    assert set(maps) == {"decoder/stage1/attention", "decoder/stage0/attention"}
    (fine,) = decoder["stage0"]["attention"]["attention"]
    np.testing.assert_allclose(maps["decoder/stage0/attention"].ravel(), fine[0].mean(0)[9 * 24 + 20], rtol=1e-4)
    (coarse,) = decoder["stage1"]["attention"]["attention"]
    np.testing.assert_allclose(maps["decoder/stage1/attention"].ravel(), coarse[0].mean(0)[4 * 12 + 10], rtol=1e-4)
    # A region has the mean of the rows of its pixels.
    region = np.zeros_like(PIXEL)
    region[0, :2] = 1.0
    rows = fine[0].mean(0)[:2].mean(0)
    np.testing.assert_allclose(maps_of(model, variables, region)["decoder/stage0/attention"].ravel(), rows, rtol=1e-4)


def test_gates_are_those_of_the_network():
    model = tiny("attention_unet")
    variables = drawn(model, IMAGE)
    maps, out = maps_of(model, variables), jax.jit(model.apply)(variables, IMAGE)[1]
    assert set(maps) == {"decoder/gate1", "decoder/gate0"}
    for i in (0, 1):
        np.testing.assert_allclose(maps[f"decoder/gate{i}"], out[f"gate/stage{i}"][0, :, :, 0], rtol=1e-5)


def test_attention_to_objects_is_a_share_of_each_pixel_and_regions_of_each_object():
    model = tiny("ocrnet", num_classes=3)
    variables = drawn(model, IMAGE)
    each = [maps_of(model, variables, class_index=c) for c in range(3)]
    assert set(each[0]) == {"attention", "regions"}
    np.testing.assert_allclose(sum(maps["attention"] for maps in each), 1.0, rtol=1e-5)
    assert all(maps["regions"].sum() == pytest.approx(1.0, rel=1e-5) for maps in each)


def test_queries_and_points_have_a_total_of_one():
    """What attention of mask2former leaves the image at its border is lost, and nothing else is."""
    model = tiny("mask2former")
    maps = maps_of(model, drawn(model, IMAGE))
    assert set(maps) == {"decoder/layer1/attention", "layer1/cross", "layer2/cross"}
    assert maps["layer1/cross"].sum() == pytest.approx(1.0, rel=1e-5) and maps["layer1/cross"].shape == (4, 6)
    assert maps["decoder/layer1/attention"].shape == (8, 12)
    assert 0.3 < maps["decoder/layer1/attention"].sum() < 1.0 + 1e-5 and maps["decoder/layer1/attention"].min() >= 0


def test_attention_between_the_kernels_of_classes_has_no_place():
    """Of as many classes as a level has pixels too."""
    model = tiny("knet", num_classes=24)
    variables, _, out = shapes(model, IMAGE.shape)
    assert out["encoder/stage2"].shape[1:3] == (4, 6)
    assert jax.eval_shape(lambda v, x: attention_maps(model, v, x, jnp.asarray(PIXEL), 0), variables, IMAGE) == {}


def test_reduced_keys_have_a_coarser_grid():
    model = tiny("segformer")
    maps = maps_of(model, drawn(model, IMAGE))
    shapes = {name: x.shape for name, x in maps.items()}
    assert shapes == {
        "encoder/stage0/block1/attention/attention": (4, 6),  # 8x12, reduced by 2
        "encoder/stage1/block1/attention/attention": (4, 6),
        "encoder/stage1/block2/attention/attention": (4, 6),
    }
    assert all(x.sum() == pytest.approx(1.0, rel=1e-5) for x in maps.values())


@pytest.mark.parametrize("name", ["unet", "encnet"])
def test_other_networks_have_none(name):
    model = tiny(name)
    _, variables = initialised(model, (SHAPE,))
    shape = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    pixels = jax.ShapeDtypeStruct(SHAPE[1:3], jnp.float32)
    assert not jax.eval_shape(lambda v, x, p: attention_maps(model, v, x, p, 0), variables, shape, pixels)


@pytest.mark.parametrize("encoder", ["vit_base_dinov2_reg", "vit_base_dinov3"])
def test_patches_of_a_vision_transformer_attend_to_patches(encoder):
    """The map is the mean over heads of the row of the pixel's patch, of the tokens behind the five others."""
    fields = {"width": 16, "depth": 1, "num_heads": 2, "patch": 4, "grid": (4, 6), "taps": (1,)}
    model = models.build("linear_head", num_classes=3, encoder=encoder, encoder_args=fields)
    variables = drawn(model, IMAGE)
    seen = []

    def see(call, args, kwargs, context):
        if isinstance(context.module, MultiHeadAttention) and context.method_name == "__call__":
            seen.append((args[0], args[4]))
        return call(*args, **kwargs)

    with nn.intercept_methods(see):
        model.apply(variables, IMAGE)
    ((tokens, rotate),) = seen
    params = variables["params"]["encoder"]["block1"]["attention"]
    query, key = (np.asarray(tokens) @ np.asarray(params[name]["kernel"]) for name in ("query", "key"))
    query = query + np.asarray(params["query"]["bias"])
    key = key + np.asarray(params["key"]["bias"]) if "bias" in params["key"] else key
    query, key = (jnp.asarray(x).reshape(1, 29, 2, 8) for x in (query, key))
    query, key = (query, key) if rotate is None else (rotate(query), rotate(key))
    weights = jax.nn.softmax(jnp.einsum("qnd,tnd->nqt", query[0], key[0]) / 8**0.5, axis=-1).mean(0)
    ((name, given),) = maps_of(model, variables).items()
    assert name == "encoder/block1/attention" and (rotate is not None) == (encoder == "vit_base_dinov3")
    np.testing.assert_allclose(given.ravel(), weights[5 + 2 * 6 + 5, 5:], rtol=1e-4)  # row 2, column 5
