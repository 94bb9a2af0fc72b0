"""ViT-Adapter: its levels and gradients written out in torch, its places, its sizes, and the networks over it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.marks import some_slow
from helpers.papers import Torch, conv, normed
from helpers.parity import FAST_COMPILE, assert_close, images, nchw
from helpers.tiny_models import ADAPTER, TINY, tiny
from helpers.variables import drawn, paths, shapes, variable_shapes

from jaxseg import models
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder
from jaxseg.models.vit_adapter import Injector, places
from jaxseg.nn import DeformableAttention, Layers
from jaxseg.tuning.layers import layer_factors

SMALL = {"width": 8, "depth": 4, "num_heads": 2, "grid": (2, 3), "pyramid": "adapter", "adapter_stem": 4}


class Levels(nn.Module):
    """The levels of an encoder, as a network sees them."""

    encoder: encoders.EncoderFactory

    @nn.compact
    def __call__(self, x, *, train=False):
        return make_encoder(self.encoder, Layers())(x, train=train)


def dense(t, x, name):
    return x @ t.leaves[f"{name}/kernel"] + t.leaves[f"{name}/bias"]


def layer_norm(t, x, name):
    return t.f.layer_norm(x, x.shape[-1:], t.leaves[f"{name}/scale"], t.leaves[f"{name}/bias"], 1e-6)


def batch_norm(t, x, name):
    """With the statistics of the batch, as in training."""
    return t.f.batch_norm(x, None, None, t.leaves[f"{name}/scale"], t.leaves[f"{name}/bias"], training=True)


def block(t, x, name, heads):
    y = layer_norm(t, x, f"{name}/norm1")
    parts = (dense(t, y, f"{name}/attention/{part}").unflatten(-1, (heads, -1)) for part in ("query", "key", "value"))
    y = t.f.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts)).transpose(1, 2).flatten(2)
    x = x + dense(t, y, f"{name}/attention/out")
    y = t.f.gelu(dense(t, layer_norm(t, x, f"{name}/norm2"), f"{name}/expand"))
    return x + dense(t, y, f"{name}/reduce")


def centres(t, maps):
    """x and y of the centres of the pixels of maps (h, w, stride), in pixels of the image: [t,2]."""
    found = []
    for h, w, stride in maps:
        rows, columns = ((t.torch.arange(side, dtype=t.torch.float32) + 0.5) * stride for side in (h, w))
        found.append(t.torch.stack([columns.repeat(h), rows.repeat_interleave(w)], -1))
    return t.torch.cat(found)


def exchange(t, x, keys, name, asking, answering, heads=2, points=4):
    """Zhu et al. 2021, eq. 3, by torch's `grid_sample`; maps (h, w, stride) of the tokens and of the keys."""
    query = layer_norm(t, x, f"{name}/query_norm")
    value = dense(t, layer_norm(t, keys, f"{name}/key_norm"), f"{name}/attention/value")
    form = (len(x), x.shape[1], heads, len(answering), points)
    offsets = dense(t, query, f"{name}/attention/offsets").reshape(*form, 2)
    weights = dense(t, query, f"{name}/attention/weights").reshape(*form[:3], -1).softmax(-1).reshape(form)
    total: Any = 0.0
    first = 0
    for i, (h, w, stride) in enumerate(answering):
        part = value[:, first : first + h * w].unflatten(-1, (heads, -1)).permute(0, 2, 3, 1).reshape(-1, 1, h, w)
        first += h * w
        depth = len(part) // len(x) // heads
        part = part.reshape(len(x) * heads, depth, h, w)
        side = t.torch.tensor([w, h], dtype=t.torch.float32)
        where = (centres(t, asking) / (side * stride))[None, :, None, None] + offsets[:, :, :, i] / side
        grid = 2 * where.transpose(1, 2).reshape(len(x) * heads, x.shape[1], points, 2) - 1
        samples = t.f.grid_sample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        samples = samples.reshape(len(x), heads, depth, x.shape[1], points).permute(0, 3, 1, 4, 2)
        total = total + (samples * weights[:, :, :, i, :, None]).sum(3)
    return dense(t, total.flatten(2), f"{name}/attention/out")


def extract(t, x, patches, name, levels, grid):
    x = x + exchange(t, x, patches, f"{name}/exchange", levels, [grid])
    y = dense(t, layer_norm(t, x, f"{name}/norm"), f"{name}/ffn/reduce")
    parts = [
        t.conv(part.transpose(1, 2).unflatten(2, (h, w)), f"{name}/ffn/depthwise", padding=1, groups=y.shape[-1])
        for part, (h, w, _) in zip(y.split([h * w for h, w, _ in levels], 1), levels)
    ]
    y = t.f.gelu(t.torch.cat([part.flatten(2).transpose(1, 2) for part in parts], 1))
    return x + dense(t, y, f"{name}/ffn/expand")


def adapter_in_torch(t, image, depth=4, heads=2, patch=16):
    """Chen et al. 2023, Fig. 4 with section 3: f[b,c,h,w] -> four levels, of a ViT with a class token."""

    def cna(x, name, stride=1):
        x = t.conv(x, f"adapter/prior/{name}/conv", stride=stride, padding=1)
        return t.f.relu(batch_norm(t, x, f"adapter/prior/{name}/norm"))

    def tokens(x):
        return x.flatten(2).transpose(1, 2)

    y = cna(cna(cna(image, "stem1", 2), "stem2"), "stem3")
    maps = [t.f.max_pool2d(y, 3, 2, 1)]
    for i in range(3):
        maps.append(cna(maps[-1], f"down{i + 1}", 2))
    maps = [t.conv(x, f"adapter/prior/project{i}") for i, x in enumerate(maps)]
    levels = [(*x.shape[2:], 2 ** (i + 3)) for i, x in enumerate(maps[1:])]
    state = t.torch.cat([tokens(x) + t.leaves["adapter/level"][i] for i, x in enumerate(maps[1:])], 1)

    missing = [-side % patch for side in image.shape[2:]]
    x = t.conv(t.f.pad(image, (0, missing[1], 0, missing[0])), "encoder/stem/patch", stride=patch)
    h, w = x.shape[2:]
    grid = (h, w, patch)
    position = t.leaves["encoder/stem/position"]  # its grid is that of the image
    first = (t.leaves["encoder/stem/class_token"] + position[:, :1]).expand(len(x), -1, -1)
    x = t.torch.cat([first, tokens(x) + position[:, 1:]], 1)
    seen = []
    for i in range(depth):
        read = exchange(t, x[:, 1:], state, f"adapter/injector{i + 1}/exchange", [grid], levels)
        x = t.torch.cat([x[:, :1], x[:, 1:] + t.leaves[f"adapter/injector{i + 1}/scale"] * read], 1)
        x = block(t, x, f"encoder/block{i + 1}", heads)
        for name in (f"extractor{i + 1}", *(("extra1", "extra2") if i + 1 == depth else ())):
            state = extract(t, state, x[:, 1:], f"adapter/{name}", levels, grid)
        seen.append(x[:, 1:].transpose(1, 2).unflatten(2, (h, w)))

    parts = state.split([a * b for a, b, _ in levels], 1)
    maps = [maps[0], *(part.transpose(1, 2).unflatten(2, level[:2]) for part, level in zip(parts, levels))]
    maps[0] = maps[0] + t.up(maps[1], "adapter/up")[:, :, : maps[0].shape[2], : maps[0].shape[3]]
    seen[3] = t.f.pad(seen[3], (0, w % 2, 0, h % 2), mode="replicate")
    for i, (x, scale) in enumerate(zip(seen, (4, 2, 1, 0.5))):
        x = x if scale == 1 else t.f.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
        maps[i] = batch_norm(t, maps[i] + x[:, :, : maps[i].shape[2], : maps[i].shape[3]], f"adapter/norm{i}")
    return maps


# The first is a size that the authors' code takes; nothing divides the second, which fills 3 by 3 patches.
@pytest.mark.parametrize("size", [(64, 32), pytest.param((37, 45), marks=pytest.mark.slow)])
def test_levels_and_gradients_are_those_of_the_paper(size):
    """In training, of each parameter; the values of the attention have half of the channels."""
    grid = tuple(-(-side // 16) for side in size)
    model = Levels(encoders.factory("vit_base", **SMALL | {"grid": grid, "adapter_ratio": 0.5}))
    x = images(*size)
    variables = drawn(model, x)
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=(2, -(-size[0] // s), -(-size[1] // s), 8)).astype(np.float32) / s for s in (1, 2, 4, 8)]
    weights = [w[:, : -(-size[0] // s), : -(-size[1] // s)] for w, s in zip(weights, (4, 8, 16, 32))]

    def ours(params):
        levels, _ = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return sum(jnp.vdot(jnp.asarray(w), level) for w, level in zip(weights, levels)), levels

    run = jax.jit(jax.grad(ours, has_aux=True), compiler_options=FAST_COMPILE)
    gradients, levels = run(variables["params"])

    t = Torch({"params": variables["params"]})
    for leaf in t.leaves.values():
        leaf.requires_grad_(True)
    theirs = adapter_in_torch(t, nchw(x))
    for ours_, theirs_ in zip(levels, theirs, strict=True):
        assert_close(ours_, theirs_.detach().numpy().transpose(0, 2, 3, 1), 1e-4)
    loss: Any = sum((nchw(w) * level).sum() for w, level in zip(weights, theirs))
    loss.backward()
    unused = {"encoder/norm/scale", "encoder/norm/bias"}
    shifts = {"adapter/prior/project0/bias", "adapter/up/bias"}
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        name = "/".join(p.key for p in path)
        if name in unused:
            assert not np.asarray(leaf).any()
        elif name in shifts or name.endswith("attention/key/bias"):  # a norm or the softmax removes them
            assert max(np.abs(leaf).max(), t.leaves[name].grad.abs().max()) < 1e-4
        else:
            assert_close(leaf, t.leaves[name].grad.numpy(), 1e-3)


def test_at_first_the_patches_are_those_of_the_transformer_alone():
    rng = np.random.default_rng(0)
    x, levels = (jnp.asarray(rng.normal(size=(1, n, 8)), jnp.float32) for n in (2, 21))
    sizes = [(4, 4), (2, 2), (1, 1)]
    where = places([(2, 1)], [16], sizes, [8, 16, 32])
    y, variables = Injector(2, 4, jnp.float32).init_with_output(jax.random.key(0), x, levels, sizes, where)
    np.testing.assert_array_equal(y, x)
    variables = jax.tree.map(lambda leaf: leaf, variables)
    variables["params"]["scale"] = jnp.ones(8)
    changed: Any = Injector(2, 4, jnp.float32).apply(variables, x, levels, sizes, where)
    assert np.abs(changed - x).max() > 1e-3


def test_a_pixel_has_its_own_place_in_each_level():
    """By hand, of an image of 30x20: two patches of 14 in three rows, and levels of strides 8 and 16."""
    found = places([(3, 2)], [14], [(4, 3), (2, 2)], [8, 16])
    assert found.shape == (6, 2, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], [[7 / 24, 7 / 32], [7 / 32, 7 / 32]], rtol=1e-6)
    np.testing.assert_allclose(found[5], [[21 / 24, 35 / 32], [21 / 32, 35 / 32]], rtol=1e-6)


def test_where_the_sizes_are_multiples_places_are_relative_as_in_the_release():
    found = places([(8, 4), (4, 2)], [8, 16], [(4, 2)], [16])
    own = [np.stack(np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h), -1) for h, w in ((8, 4), (4, 2))]
    np.testing.assert_allclose(found[:, 0], np.concatenate([x.reshape(-1, 2) for x in own]), rtol=1e-6)


def test_attention_to_other_tokens_needs_their_places():
    x = jnp.zeros((1, 4, 8))
    with pytest.raises(ValueError, match="keys need places"):
        DeformableAttention(2).init(jax.random.key(0), x, None, [(2, 2)], x)


FORMS = {
    "vit_base": {"patch": 4, "taps": (2, 4)},
    "vit_base_dinov2_reg": {},
    "vit_base_dinov3": {"width": 16, "rounding": "down"},
    "vit_base_siglip2": {"patch": 8, "depth": 3},
}


@pytest.mark.parametrize("name", some_slow(FORMS, ("vit_base_siglip2",)))
def test_every_form_of_a_vision_transformer_has_levels_of_any_image(name):
    """Of patches of 4, 8, 14 and 16, class tokens, registers and none, fewer blocks than levels, sizes rounded down."""
    fields = SMALL | FORMS[name]
    model = models.build("fpn", num_classes=3, width=4, finest=1, encoder=name, encoder_args=fields)
    variables, logits, out = shapes(model, (1, 67, 45, 3))
    finest = {4: 1, 8: 2}[fields["patch"]] if "patch" in fields else 4
    sizes = [(-(-67 // s), -(-45 // s), fields["width"]) for s in (finest, 2 * finest, 4 * finest, 8 * finest)]
    assert [out[f"encoder/stage{i}"].shape[1:] for i in range(4)] == sizes and logits.shape == (1, 67, 45, 3)
    interactions = {"vit_base": 2, "vit_base_siglip2": 3}.get(name, 4)
    found = {child for child in variables["params"]["adapter"] if child.startswith("injector")}
    assert found == {f"injector{i + 1}" for i in range(interactions)}


def test_weights_of_the_encoder_are_loaded_as_without_it():
    """The encoder has the parameters that it has with the simple pyramid; the adapter stands beside it."""
    fields = SMALL | {"depth": 1, "taps": (1,)}
    build = functools.partial(models.build, "fpn", num_classes=3, width=4, encoder="vit_base_dinov2_reg")
    with_, without = (
        variable_shapes(build(encoder_args=fields | {"pyramid": pyramid}), (1, 32, 32, 3))["params"]
        for pyramid in ("adapter", "simple")
    )
    assert jax.tree.map(lambda x: x.shape, with_["encoder"]) == jax.tree.map(lambda x: x.shape, without["encoder"])
    assert set(with_) == (set(without) - {"pyramid"}) | {"adapter"}
    factors = layer_factors(with_ | {"lora": {"adapter": with_["adapter"]}}, 0.5)
    assert set(jax.tree.leaves([factors["adapter"], factors["lora"]])) == {1.0}
    assert factors["encoder"]["block1"]["norm1"]["scale"] == 0.5
    assert "extra2/ffn/depthwise/kernel" in paths(with_["adapter"])


def test_in_half_precision_its_parameters_stay_float32_and_its_levels_do_not():
    variables, logits, out = shapes(tiny("fpn", dtype="bfloat16", **ADAPTER), (1, 33, 47, 3), train=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {logits.dtype} == {np.dtype("float32")}
    assert {out[f"encoder/stage{i}"].dtype for i in range(4)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("name", ["dpt", "linear_head", "segmenter"])
def test_networks_that_read_blocks_read_its_levels(name):
    fields = TINY[name] | {"encoder": "vit_base", "encoder_args": SMALL | {"depth": 1, "taps": (1,)}}
    fields |= {"dpt": {"widths": (4, 4, 4, 4)}, "linear_head": {"levels": 4}, "segmenter": {}}[name]
    _, logits, out = shapes(models.build(name, num_classes=3, **fields), (1, 40, 33, 3))
    assert logits.shape == (1, 40, 33, 3) and [out[f"encoder/stage{i}"].shape[1] for i in range(4)] == [16, 8, 4, 2]


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("eomt", {}, r"^EoMT: encoder must be a vision transformer \(vit_\*\) without pyramid='adapter'"),
        ("unetr", {}, r"^unetr reads levels of one stride, those of a vision transformer; .* are \(4, 8, 16, 32\)"),
        ("transunet", {}, "^transunet has a transformer of its own"),
        ("fpn", {"patch": 2}, r"^ViT-Adapter: patches must be of at least 3 pixels, got patch=2\."),
        (
            "fpn",
            {"adapter_heads": 3},
            r"^ViT-Adapter: adapter_heads=3 must divide the 8 channels of the values, adapter_ratio=1\.0 of width=8",
        ),
    ],
)
def test_what_it_does_not_fit_is_refused(name, fields, told):
    model = models.build(name, num_classes=3, encoder="vit_base", encoder_args=SMALL | fields)
    with pytest.raises(ValueError, match=told):
        jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))


RELEASE = {
    "vit_small": (58, {}),
    "vit_base": (134, {"grid": (24, 24)}),  # from weights of images of 384x384
    "vit_large": (364, {"grid": (24, 24)}),
}


@pytest.mark.parametrize("name", some_slow(RELEASE, ("vit_base", "vit_large")))
def test_parameters_are_those_of_the_release(name):
    """UPerNet's for the 150 classes of ADE20K in millions, from the table there; the adapter's by layer."""
    millions, fields = RELEASE[name]
    fields = fields | {"pyramid": "adapter"}
    model = models.build("upernet", num_classes=150, encoder=name, encoder_args=fields)
    params = variable_shapes(model, (1, 64, 64, 3))["params"]
    total, own = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, params["adapter"]))
    assert round(total / 1e6) == millions
    c, n = {"vit_small": (384, 6), "vit_base": (768, 12), "vit_large": (1024, 16)}[name]
    values = c if name == "vit_small" else c // 2
    prior = normed(3, 3, 64) + 2 * normed(3, 64, 64) + normed(3, 64, 128) + normed(3, 128, 256) + normed(3, 256, 256)
    prior += sum(conv(1, width, c) for width in (64, 128, 256, 256))

    def attention(levels):  # two norms, four points of two offsets and a weight, values, result
        return 4 * c + conv(1, c, 12 * n * levels) + conv(1, c, values) + conv(1, values, c)

    extractor = attention(1) + 2 * c + conv(1, c, c // 4) + 10 * (c // 4) + conv(1, c // 4, c)
    ends = conv(2, c, c) + 4 * 2 * c
    assert own == prior + 3 * c + 4 * (attention(3) + c) + 6 * extractor + ends
