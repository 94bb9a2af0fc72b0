"""Vision transformers beside those of transformers and timm, and the networks over them beside smp's and torch's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import oracles
from helpers.marks import some_slow
from helpers.parity import FAST_COMPILE, assert_close, check_eval, check_gradients, nchw, nhwc
from helpers.variables import drawn, variable_shapes

from jaxseg import models, pretrained
from jaxseg.models import encoders, feature_pyramid, segmenter
from jaxseg.models.encoders.vit import ViTBlock, rotary_angles
from jaxseg.models.eomt import masked_share
from jaxseg.models.feature_pyramid import FeaturePyramid
from jaxseg.nn import Conv, at_step
from jaxseg.pretrained import catalogue, inverse, peer_form, smp, vit
from jaxseg.pretrained import eomt as eomt_rules
from jaxseg.pretrained.rules import Rule, conv, conv_transpose, dense, layer, norm, prefixed

# A form, the class of transformers, its settings beside the sizes, and the rules.
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 12, "patch_size": 4}
HIDDEN = {"intermediate_size": 64}
FORMS = {
    "vit_base_dinov2": ("Dinov2Model", {"layerscale_value": 0.5}, vit.transformers),
    "vit_base_dinov2_reg": ("Dinov2WithRegistersModel", {}, vit.transformers),
    "vit_base_dinov3": ("DINOv3ViTModel", {**HIDDEN, "num_register_tokens": 4}, vit.dinov3),
    "vit_base": ("ViTModel", {**HIDDEN, "layer_norm_eps": 1e-6}, vit.transformers),
    "vit_base_mae": ("ViTMAEModel", {**HIDDEN, "layer_norm_eps": 1e-6, "mask_ratio": 0.0}, vit.transformers),
    "vit_base_clip": ("CLIPVisionModel", HIDDEN, vit.towers),
    "vit_base_siglip2": ("SiglipVisionModel", HIDDEN, vit.towers),
}
TINY = {"width": 16, "depth": 2, "num_heads": 2, "patch": 4, "grid": (3, 3), "taps": (1, 2), "rounding": "down"}
# Those of MAE are not interpolated here: theirs shuffles the patches, which needs as many numbers as there are.
IMAGE = {"vit_base_mae": (12, 12)}


def peer(name: str):
    """The class of transformers, with the features of each block, after the last norm, as its result."""
    torch, transformers = oracles.torch(), oracles.transformers()
    cls, fields, _ = FORMS[name]
    base = getattr(transformers, cls)

    class Features(base):
        def forward(self, x):
            options = {} if "dino" in name else {"interpolate_pos_encoding": True}
            if name == "vit_base_mae":
                options["noise"] = torch.arange(9.0)[None].expand(x.shape[0], -1)
            states.clear()
            super().forward(x, **options)
            last = next(getattr(self, n) for n in ("layernorm", "norm", "post_layernorm") if hasattr(self, n))
            h, w = (side // 4 for side in x.shape[2:])
            return [last(state)[:, -h * w :].transpose(1, 2).unflatten(2, (h, w)) for state in states]

    module, states = base(getattr(transformers, cls.replace("Model", "Config"))(**SIZES | fields)), []
    for block in next(part for part in module.modules() if isinstance(part, torch.nn.ModuleList)):
        block.register_forward_hook(lambda _, __, state: states.append(state[0] if isinstance(state, tuple) else state))
    module.__class__ = Features
    return module


@pytest.mark.parametrize("name", some_slow(FORMS, ("vit_base_mae",)))  # the form of vit_base
def test_features_are_those_of_transformers(name):
    """At 5 by 3 patches, of an image whose sides the patch does not divide."""
    encoder = encoders.build(name, **TINY)
    size = IMAGE[name] if name in IMAGE else (21, 15)
    check_eval(encoder, peer(name), FORMS[name][2](), [size], ours=list, theirs=list)


def with_linear_head(size):
    """DINOv2 of transformers under a 1x1 convolution whose logits are enlarged to the image."""
    torch, features = oracles.torch(), peer("vit_base_dinov2")

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = features, torch.nn.Conv2d(16, 5, 1)

        def forward(self, x):
            return torch.nn.functional.interpolate(self.head(self.inner(x)[-1]), size=size, mode="bilinear")

    return Linear()


def test_gradients_are_those_of_transformers():
    size = (20, 12)
    encoder = encoders.factory("vit_base_dinov2", **TINY | {"taps": (2,)})
    rules = [*prefixed(vit.transformers(), r"inner\.", "encoder"), *layer("head", "head")]
    module = with_linear_head(size)
    module.inner.embeddings.mask_token.requires_grad_(False)
    check_gradients(models.build("linear_head", num_classes=5, encoder=encoder), module, rules, size)


def padded(module, multiple):
    """The module with zeros at the bottom and right of its image, and its logits without them, for any size."""
    torch = oracles.torch()

    class Padded(type(module)):
        def forward(self, x):
            (h, w), (bottom, right) = x.shape[2:], (-side % multiple for side in x.shape[2:])
            return super().forward(torch.nn.functional.pad(x, (0, right, 0, bottom)))[:, :, :h, :w]

    module.__class__ = Padded
    return module


@pytest.mark.parametrize("readout", ["cat", pytest.param("add", marks=pytest.mark.slow)])
def test_dpt_has_the_logits_of_smp(readout):
    """Four blocks of patches of 16, which become maps of strides 4, 8, 16 and 32.

    Theirs takes multiples of 32 alone: for 29x90 pixels it reads 32x96, two rows of six patches, as ours does; the
    positions are resized from two rows of four.
    """
    module = oracles.smp().DPT(
        "tu-vit_tiny_patch16_224",
        encoder_weights=None,
        decoder_readout=readout,
        decoder_intermediate_channels=(4, 6, 8, 10),
        decoder_fusion_channels=8,
        encoder_output_indices=[0, 1, 2, 3],
        classes=5,
        embed_dim=16,
        num_heads=2,
        img_size=(32, 64),
        dynamic_img_size=True,
    )
    module.encoder.model.blocks = module.encoder.model.blocks[:4]
    fields = {"width": 16, "depth": 4, "num_heads": 2, "grid": (2, 4), "norm_levels": False, "antialias": True}
    encoder = encoders.factory("vit_base", **fields)
    model = models.build("dpt", num_classes=5, features=8, widths=(4, 6, 8, 10), readout=readout, encoder=encoder)
    check_eval(model, padded(module, 32), smp.dpt(vit.timm()), [(29, 90)])


def test_the_pyramid_is_that_of_vitdet():
    torch = oracles.torch()

    def level(*first, width):
        convs = [torch.nn.Conv2d(width, 6, 1, bias=False), Norm(6), torch.nn.Conv2d(6, 6, 3, padding=1, bias=False)]
        return torch.nn.Sequential(*first, *convs, Norm(6))

    class Norm(torch.nn.LayerNorm):
        def __init__(self, width):
            super().__init__(width, eps=1e-6)

        def forward(self, x):
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Pyramid(torch.nn.Module):
        def __init__(self):
            super().__init__()
            up = torch.nn.ConvTranspose2d
            self.finest = level(up(8, 4, 2, 2), Norm(4), torch.nn.GELU(), up(4, 2, 2, 2), width=2)
            self.fine = level(up(8, 4, 2, 2), width=4)
            self.same = level(width=8)
            self.coarse = level(torch.nn.MaxPool2d(2), width=8)

        def forward(self, x):
            return [self.finest(x), self.fine(x), self.same(x), self.coarse(x)]

    class Ours(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            return FeaturePyramid(6, 4, name="pyramid")(x, (4 * x.shape[1], 4 * x.shape[2]))

    rules = layer(r"finest\.0", "level0/up", conv_transpose) + norm(r"finest\.1", "level0/up_norm")
    rules += layer(r"finest\.3", "level0/up2", conv_transpose) + layer(r"fine\.0", "level1/up", conv_transpose)
    for i, (name, first) in enumerate((("finest", 4), ("fine", 1), ("same", 0), ("coarse", 1))):
        for j, part in enumerate(("project", "project_norm", "smooth", "smooth_norm")):
            rule = norm if part.endswith("norm") else functools.partial(layer, weight=conv)
            rules += rule(rf"{name}\.{first + j}", f"level{i}/{part}")
    model = Ours()
    module = Pyramid()
    with torch.no_grad():
        for x in module.parameters():
            x.copy_(torch.randn(x.shape) * 0.5)
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 8)).astype(np.float32)
    state = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = pretrained.merge(shapes, pretrained.convert(state, prefixed(rules, "", "pyramid")))
    for ours, theirs in zip(
        jax.jit(model.apply, compiler_options=FAST_COMPILE)(variables, x), module(nchw(x)), strict=True
    ):
        assert_close(ours, nhwc(theirs))


def test_the_pyramid_of_patches_of_14_has_powers_of_two():
    """Of any image, with as many features as its stride says."""
    pyramid = FeaturePyramid(3, 14)
    assert pyramid.strides == (4, 8, 16, 32)
    assert FeaturePyramid(3, 16).strides == (4, 8, 16, 32) and FeaturePyramid(3, 2).strides == (1, 2, 4)
    shapes = jax.eval_shape(
        lambda k: pyramid.init_with_output(k, jnp.zeros((1, 5, 3, 8)), (65, 40))[0], jax.random.key(0)
    )
    assert [x.shape[1:3] for x in shapes] == [(17, 10), (9, 5), (5, 3), (3, 2)]


@pytest.mark.parametrize("size", [(512, 64), (30, 131)])
def test_a_ramp_over_the_image_is_the_same_ramp_in_each_level(monkeypatch, size):
    """A feature lies at the centre of its pixels, though patches of 14 reach beyond the image; up to the last cell."""
    patches = tuple(-(-side // 14) for side in size)

    def of_cells(_, factor, *args, **kwargs):
        cell, counts = (14 / factor, [n * factor for n in patches]) if factor else (28, [-(-n // 2) for n in patches])
        axes = [(np.arange(count) + 0.5) * cell for count in counts]
        return lambda x: jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1)[None], jnp.float32)

    monkeypatch.setattr(feature_pyramid, "PyramidLevel", of_cells)
    pyramid = FeaturePyramid(2, 14)
    for level, (stride, factor) in zip(pyramid.apply({}, None, size), pyramid.levels.items(), strict=True):
        cell = 14 / factor if factor else 28
        lasts = [(-(-side // cell) - 0.5) * cell for side in size]  # the centre of the last cell of the image
        axes = [np.clip((np.arange(-(-n // stride)) + 0.5) * stride, cell / 2, x) for n, x in zip(size, lasts)]
        np.testing.assert_allclose(level[0], np.stack(np.meshgrid(*axes, indexing="ij"), -1), rtol=1e-5)


def test_an_image_of_any_size_is_padded_to_patches():
    """The patches that the image fills are those of the padded image."""
    encoder = encoders.build("vit_base", **TINY | {"rounding": "up", "depth": 1, "taps": (1,)})
    x = np.random.default_rng(1).normal(size=(1, 10, 13, 3)).astype(np.float32)
    variables = drawn(encoder, x)
    apply = jax.jit(encoder.apply, compiler_options=FAST_COMPILE)
    (odd,), (padded,) = apply(variables, x), apply(variables, np.pad(x, ((0, 0), (0, 2), (0, 3), (0, 0))))
    np.testing.assert_array_equal(odd, padded)
    with pytest.raises(ValueError, match=r"taps .3,. must be blocks, 1 to 1"):
        encoder.clone(taps=(3,)).init(jax.random.key(0), x)


def test_rotary_angles_are_those_of_the_paper():
    """One patch lies at the centre of the image; of two rows the first lies at -1/2, with the frequency 2 pi first."""
    np.testing.assert_allclose(rotary_angles(1, 1, 8), np.zeros((1, 4)))
    angles = np.asarray(rotary_angles(2, 1, 8))
    np.testing.assert_allclose(angles[:, 0], [-np.pi, np.pi], rtol=1e-6)
    np.testing.assert_allclose(angles[:, 1], np.array([-np.pi, np.pi]) / 10, rtol=1e-6)
    np.testing.assert_allclose(angles[:, 2:], 0.0)


def segmenter_in_torch():
    """The mask transformer of Strudel 2021, section 3.2, over the patches of a convolution."""
    torch = oracles.torch()

    class Segmenter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.project = torch.nn.Conv2d(3, 6, 4, 4), torch.nn.Linear(6, 8)
            self.tokens = torch.nn.Parameter(torch.randn(5, 8))
            layer = functools.partial(torch.nn.TransformerEncoderLayer, 8, 2, 32, 0.0, "gelu")
            self.blocks = torch.nn.ModuleList([layer(batch_first=True, norm_first=True) for _ in range(2)])
            self.norm, self.score_norm = torch.nn.LayerNorm(8), torch.nn.LayerNorm(5)
            self.patches, self.classes = (torch.nn.Linear(8, 8, bias=False) for _ in range(2))

        def forward(self, x):
            maps = self.patch(x)
            tokens = self.project(maps.flatten(2).transpose(1, 2))
            both = torch.cat([tokens, self.tokens.expand(len(x), -1, -1)], 1)
            for block in self.blocks:
                both = block(both)
            both = self.norm(both)
            patches = torch.nn.functional.normalize(self.patches(both[:, :-5]), dim=-1)
            classes = torch.nn.functional.normalize(self.classes(both[:, -5:]), dim=-1)
            scores = self.score_norm(patches @ classes.transpose(1, 2)).transpose(1, 2)
            scores = scores.unflatten(2, maps.shape[2:])
            return torch.nn.functional.interpolate(scores, size=x.shape[2:], mode="bilinear")

    return Segmenter()


def segmenter_rules():
    rules = layer("patch", "encoder/patch") + layer("project", "project", dense) + norm("score_norm", "head")
    rules += [Rule("tokens", "params/head/embedding", dense), *norm("norm", "decoder/norm")]
    for name in ("patches", "classes"):
        rules += layer(name, f"decoder/{name}", dense)
    for i in (0, 1):
        theirs, ours = rf"blocks\.{i}\.", f"decoder/block{i + 1}"
        three = [f"params/{ours}/attention/{name}" for name in ("query", "key", "value")]
        rules.append(
            Rule(theirs + r"self_attn\.in_proj_weight", tuple(f"{x}/kernel" for x in three), vit._thirds(dense))
        )
        biases = vit._thirds(np.asarray)
        rules.append(Rule(theirs + r"self_attn\.in_proj_bias", tuple(f"{x}/bias" for x in three), biases))
        rules += layer(theirs + r"self_attn\.out_proj", f"{ours}/attention/out", dense)
        rules += layer(theirs + "linear1", f"{ours}/expand", dense) + layer(theirs + "linear2", f"{ours}/reduce", dense)
        rules += norm(theirs + "norm1", f"{ours}/norm1") + norm(theirs + "norm2", f"{ours}/norm2")
    return rules


class Patches(nn.Module):
    """One convolution, as small as an encoder can be."""

    strides = (4,)

    @nn.compact
    def __call__(self, x, *, train=False):
        return (Conv(6, 4, stride=4, padding=0, name="patch")(x),)


def test_segmenter_is_that_of_the_paper():
    model = models.build("segmenter", num_classes=5, width=8, num_heads=2, encoder=Patches)
    check_eval(model, segmenter_in_torch(), segmenter_rules(), [(12, 20)])
    check_gradients(model, segmenter_in_torch(), segmenter_rules(), (12, 20))


def eomt_of_transformers(grid=(4, 4)):
    """EoMT whose logits are those of our network; its image has 16 patches, in rows and columns as `grid` says."""
    torch, transformers = oracles.torch(), oracles.transformers()
    config = transformers.EomtConfig(
        **SIZES | {"image_size": 16, "num_hidden_layers": 3},
        num_queries=7,
        num_blocks=2,
        num_upscale_blocks=1,
        num_labels=5,
        layerscale_value=0.5,
        num_register_tokens=2,
    )

    class Logits(transformers.EomtForUniversalSegmentation):
        def forward(self, x):
            out = super().forward(x)
            masks = torch.nn.functional.interpolate(out.masks_queries_logits, size=x.shape[2:], mode="bilinear")
            classes = out.class_queries_logits.softmax(-1)[..., :-1]
            return torch.log(torch.einsum("bqk,bqyx->bkyx", classes, masks.sigmoid()) + 1e-12)

    module = transformers.EomtForUniversalSegmentation(config)
    module.__class__, module.grid_size = Logits, grid
    return module


def eomt(grid=(4, 4), **fields):
    args = {
        "width": 16,
        "depth": 3,
        "num_heads": 2,
        "patch": 4,
        "grid": grid,
        "registers": 2,
        "class_position": False,
    }
    encoder = encoders.factory("vit_base_dinov2_reg", **args)
    return models.build("eomt", num_classes=5, queries=7, blocks=2, up_steps=1, encoder=encoder, **fields)


@pytest.mark.parametrize("masked", some_slow((True, False), (False,)))
def test_eomt_has_the_logits_of_transformers(masked):
    """With the masks of the beginning, and without them, as after the annealing.

    Theirs takes whole patches alone, as many as its table has: for 7x30 pixels it reads 8x32, two rows of eight.
    """
    module = eomt_of_transformers((2, 8))
    buffer = module.attn_mask_probs
    share = 1.0 if masked else 0.0
    model = eomt((2, 8), anneal_end=0 if masked else 1)

    class Shared(type(module)):
        def forward(self, x):
            buffer.fill_(share)  # the test draws every number of the state
            return super().forward(x)

    module.__class__ = Shared
    check_eval(model, padded(module, 4), eomt_rules.transformers(), [(7, 30)])


def test_eomt_has_the_gradients_of_transformers():
    module = eomt_of_transformers()
    buffer = module.attn_mask_probs

    class Shared(type(module)):
        def forward(self, x):
            buffer.fill_(1.0)
            return super().forward(x)

    module.__class__ = Shared
    check_gradients(eomt(), module, eomt_rules.transformers(), (16, 16))


def test_the_rules_of_eomt_backwards_give_the_names_of_transformers():
    state = eomt_of_transformers().state_dict()
    (known,) = catalogue.network_formats("eomt")
    shapes = {path: x.shape for path, x in pretrained.flatten(variable_shapes(eomt(), (1, 16, 16, 3))).items()}
    made = {entry.name: entry.shape for entry in inverse.entries(shapes, known.rules(), known.names_over(None))}
    buffers = {"attn_mask_probs", "criterion.empty_weight"}
    assert made == {name: tuple(x.shape) for name, x in state.items() if name not in buffers}


def test_what_a_file_of_eomt_says_of_blocks_and_masks_is_compared():
    """Its rules leave the buffer out: a network that differs takes the weights and gives other numbers."""
    (known,) = catalogue.network_formats("eomt")
    annealed = models.build("eomt", num_classes=3, blocks=3, anneal_end=10, encoder="vit_small_dinov2_reg")

    def notes(shares, network=annealed):
        arrays = {} if shares is None else {"model.attn_mask_probs": np.float32(shares)}
        return peer_form.remarks(known, "vit_small_dinov2_reg", network.clone(encoder=class_free), arrays)

    class_free = encoders.factory("vit_small_dinov2_reg", class_position=False)
    assert notes(None) == notes([0, 0, 0]) == []
    assert notes([0, 0, 0, 0])[0].endswith("ours with blocks=4")
    assert notes([1, 1, 1])[0].endswith("ours with anneal_end=0")
    assert notes([0, 0, 0], annealed.clone(anneal_end=0))[0].endswith("ours with anneal_end above 0")


def test_masks_are_annealed_block_by_block():
    """From step 100 to 300: the first block until 200, the second from there."""
    share = functools.partial(masked_share, blocks=2, start=100, end=300, power=0.9)
    shares = [[float(share(jnp.int32(step), block)) for block in (0, 1)] for step in (0, 100, 150, 200, 250, 300, 999)]
    half = 0.5**0.9
    np.testing.assert_allclose(shares, [[1, 1], [1, 1], [half, 1], [0, 1], [0, half], [0, 0], [0, 0]], rtol=1e-6)


def test_the_number_of_the_step_decides_which_queries_are_masked():
    """Before the annealing the predictions are those of masks, after it those of none, and between them is neither."""
    model = eomt(anneal_start=10, anneal_end=30)
    x = np.random.default_rng(0).normal(size=(2, 14, 16, 3)).astype(np.float32)
    variables = drawn(model, x)

    def queries(model, step):
        apply = at_step(model.apply, jnp.asarray(step, jnp.int32))
        return apply(variables, x, train=True, rngs={"dropout": jax.random.key(0)})[1]["queries"][1]

    compiled = functools.partial(jax.jit, compiler_options=FAST_COMPILE)
    run = compiled(functools.partial(queries, model))
    before, middle, after = run(3), run(15), run(30)
    always = compiled(lambda: model.clone(anneal_end=0).apply(variables, x, train=True)[1]["queries"][1])()
    np.testing.assert_allclose(before, always, rtol=1e-4, atol=1e-4)
    evaluated = compiled(lambda: model.apply(variables, x)[1]["queries"][1])()
    assert evaluated.shape == (1, 2, 7, 8, 7) and after.shape == (3, 2, 7, 8, 7)
    np.testing.assert_allclose(after[-1], evaluated[-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(middle[0], before[0])  # before the first block nothing was masked
    assert np.abs(middle[-1] - before[-1]).max() > 1e-3 and np.abs(middle[-1] - after[-1]).max() > 1e-3


def test_eomt_needs_a_vision_transformer():
    with pytest.raises(ValueError, match="encoder must be a vision transformer"):
        jax.eval_shape(
            models.build("eomt", num_classes=2, encoder="plain").init, jax.random.key(0), jnp.ones((1, 8, 8, 3))
        )
    with pytest.raises(ValueError, match="depth 3 must be at least blocks=4"):
        jax.eval_shape(eomt().clone(blocks=4).init, jax.random.key(0), jnp.ones((1, 8, 8, 3)))


LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
# An encoder, and the class and settings of the model whose weights the Hub has for it.
PUBLISHED = {
    "vit_base": ("ViTForImageClassification", {}),
    "vit_base_dinov2": ("Dinov2Model", {"image_size": 518, "patch_size": 14}),
    "vit_base_dinov2_reg": ("Dinov2WithRegistersModel", {"image_size": 518, "patch_size": 14}),
    "vit_small_dinov3": ("DINOv3ViTModel", {"num_register_tokens": 4}),
    "vit_base_mae": ("ViTMAEForPreTraining", {}),
    "vit_large_clip": ("CLIPVisionModel", {**LARGE, "intermediate_size": 4096, "patch_size": 14}),
    "vit_base_clip": ("CLIPVisionModel", {"patch_size": 16}),
    "vit_base_siglip2": ("SiglipVisionModel", {}),
}


# The others have layers and names of these.
@pytest.mark.parametrize("name", some_slow(PUBLISHED, set(PUBLISHED) - {"vit_base_dinov2", "vit_base_siglip2"}))
def test_published_weights_fit(name):
    """At full size, by the shapes, under the names that transformers saves, those of the files on the Hub."""
    torch, transformers = oracles.torch(), oracles.transformers()
    cls, fields = PUBLISHED[name]
    config = next(f"{cls.partition(end)[0]}Config" for end in ("For", "Model") if end in cls)
    small = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    small |= {} if name.endswith("dinov3") is False else {"hidden_size": 384, "num_attention_heads": 6}
    small |= {"intermediate_size": 3072} if "clip" in name or "siglip" in name else {}
    with torch.device("meta"):
        module = getattr(transformers, cls)(getattr(transformers, config)(**small | fields))
    state = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in module.state_dict().items()}
    prefix = next((p for p in ("vit.",) if any(key.startswith(p) for key in state)), "")
    state = {key.removeprefix(prefix): x for key, x in state.items()}
    lists = [known.rules() for known in catalogue.encoder_formats(name)]
    pretrained.merge(variable_shapes(encoders.build(name), (1, 32, 32, 3)), pretrained.rename(state, lists))


def test_files_on_the_hub_have_their_names(tmp_path):
    """What transformers saves has the names of the files, and both lead to the same encoder."""
    transformers = oracles.transformers()
    encoder = encoders.build("vit_base_dinov2", **TINY)
    network = models.build("linear_head", num_classes=3, encoder=encoders.factory("vit_base_dinov2", **TINY))
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
    module = transformers.Dinov2Model(transformers.Dinov2Config(**SIZES))
    module.save_pretrained(tmp_path)
    loaded = pretrained.load(variables, str(tmp_path), encoder="vit_base_dinov2", network=network)
    state = {name: x.detach().numpy() for name, x in module.state_dict().items()}
    expected = pretrained.merge(variable_shapes(encoder, (1, 12, 12, 3)), pretrained.convert(state, vit.transformers()))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["params"]["encoder"], expected["params"])


def test_a_tower_is_taken_out_of_a_file_of_images_and_texts(tmp_path):
    transformers = oracles.transformers()
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    text |= {"vocab_size": 20, "max_position_embeddings": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=SIZES | HIDDEN, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    network = models.build("linear_head", num_classes=3, encoder=encoders.factory("vit_base_clip", **TINY))
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
    loaded = pretrained.load(variables, str(tmp_path), encoder="vit_base_clip", network=network)
    assert {x.dtype for x in jax.tree.leaves(loaded.variables["params"]["encoder"])} == {np.dtype("float32")}


@pytest.mark.parametrize("name", ["fpn", "upernet"])
def test_a_pyramid_takes_whole_patches_where_sizes_are_rounded_down(name):
    """16-pixel patches of 50x70 pixels: three rows and four columns, brought to the size of the image."""
    fields = {"width": 8, "depth": 1, "num_heads": 2, "pyramid_width": 4, "rounding": "down"}
    model = models.build(name, num_classes=3, width=4, encoder="vit_base", encoder_args=fields)
    image = jnp.zeros((1, 50, 70, 3))
    (logits, out), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    assert logits.shape == (1, 50, 70, 3)
    levels = [out[f"encoder/stage{i}"].shape[1:3] for i in range(4)]
    assert levels == [(13, 18), (7, 9), (4, 5), (2, 3)]


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        (
            "segmenter",
            {"num_heads": 12, "encoder_args": {"width": 64}},
            r"^segmenter\.num_heads must divide .* 64, got 12",
        ),
        ("segmenter", {"width": 200}, r"^segmenter\.num_heads must divide .* 200, got 3, the width // 64 of None"),
        ("linear_head", {"levels": 7}, r"^linear_head\.levels=7 is more than the 4 levels of the encoder"),
        ("dpt", {"widths": (4, 4, 4, 4, 4)}, r"^dpt\.widths must have a number .*, which has 4 levels, got \(4, 4"),
        ("dpt", {"widths": (4, 4)}, r"^dpt\.widths must have a number .*, which has 4 levels, got \(4, 4\)"),
        ("enet", {"factorised": (99,)}, r"^enet\.factorised=\(99,\) names bottlenecks .* gives it 8 of them"),
        ("linear_head", {"encoder_args": {"num_heads": 3}}, r"^ViT: num_heads=3 must divide width=16\."),
        (
            "linear_head",
            {"encoder": "vit_small_dinov3", "encoder_args": {"width": 24, "num_heads": 4}},
            r"^ViT: num_heads=4 must divide width=24, a multiple of 4 channels for each with position='rotary'",
        ),
    ],
)
def test_fields_that_no_layer_would_read_or_fit_are_refused(name, fields, told):
    if name != "enet":
        small = {"width": 16, "depth": 4, "num_heads": 2, "patch": 4, "grid": (4, 4)}
        fields = {"encoder": "vit_base", **fields}
        fields["encoder_args"] = small | (fields["encoder_args"] if "encoder_args" in fields else {})
    with pytest.raises(ValueError, match=told):
        jax.eval_shape(models.build(name, num_classes=3, **fields).init, jax.random.key(0), jnp.ones((1, 16, 16, 3)))


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12), (32, 1)])
def test_segmenter_has_a_head_for_each_64_channels(width, heads, monkeypatch):
    seen = []

    def blocks(*args, **fields):
        seen.append(args[0])
        return ViTBlock(*args, **fields)

    monkeypatch.setattr(segmenter, "ViTBlock", blocks)
    fields = {"width": width, "depth": 1, "num_heads": 1, "patch": 8, "grid": (2, 2)}
    model = models.build("segmenter", num_classes=3, encoder="vit_base", encoder_args=fields)
    jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 16, 16, 3)))
    assert seen == [heads, heads]
