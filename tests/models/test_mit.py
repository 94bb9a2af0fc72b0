"""Mix Transformers and SegFormer beside transformers and segmentation_models.pytorch."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles
from helpers.marks import at_each_size, some_slow
from helpers.parity import (
    FAST_COMPILE,
    assert_close,
    check_eval,
    check_gradients,
    draw,
    images,
    load,
    nchw,
    nhwc,
    state_of,
)
from helpers.variables import count_parameters, variable_shapes

from jaxseg import models, pretrained
from jaxseg.models import encoders
from jaxseg.pretrained import catalogue, mit

SIZES = {
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2), 256),
    "b1": ((64, 128, 320, 512), (2, 2, 2, 2), 256),
    "b2": ((64, 128, 320, 512), (3, 4, 6, 3), 768),
    "b3": ((64, 128, 320, 512), (3, 4, 18, 3), 768),
    "b4": ((64, 128, 320, 512), (3, 8, 27, 3), 768),
    "b5": ((64, 128, 320, 512), (3, 6, 40, 3), 768),
}


def config(name: str, depths: tuple[int, ...] | None = None, **fields):
    widths, published, features = SIZES[name]
    return oracles.transformers().SegformerConfig(
        hidden_sizes=widths,
        depths=depths or published,
        decoder_hidden_size=features,
        num_labels=7,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
        **fields,
    )


def enlarged(torch, logits, x):
    """Logits at a quarter of the size, enlarged as the authors and transformers do before the loss."""
    return torch.nn.functional.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def wrapped(module):
    """The torch module with logits at the image's size."""
    torch = oracles.torch()

    class Enlarged(type(module)):
        def forward(self, x):
            return enlarged(torch, super().forward(x).logits, x)

    module.__class__ = Enlarged
    return module


NARROW, FEATURES = (8, 16, 20, 32), 16


@functools.cache
def segformer_b0(depths):
    """Narrow, but for the published depths."""
    fields = config("b0", depths)
    if depths != SIZES["b0"][1]:
        fields.hidden_sizes, fields.decoder_hidden_size = NARROW, FEATURES
    return wrapped(oracles.transformers().SegformerForSemanticSegmentation(fields))


def ours(depths):
    whole = depths == SIZES["b0"][1]
    args = {"drop_path": 0.0, "depths": depths} | ({} if whole else {"widths": NARROW})
    fields = {} if whole else {"features": FEATURES}
    return models.build("segformer", num_classes=7, dropout=0.0, encoder="mit_b0", encoder_args=args, **fields)


# One stage of two blocks has the code of four such stages, the published ones.
each_depth = pytest.mark.parametrize("depths", some_slow(((1, 2, 1, 1), (2, 2, 2, 2)), ((2, 2, 2, 2),)))


@each_depth
@at_each_size
def test_segformer_b0_has_the_logits_of_transformers(depths, size):
    check_eval(ours(depths), segformer_b0(depths), mit.segformer_transformers(), [size])


@each_depth
def test_segformer_b0_has_the_gradients_of_transformers(depths):
    check_gradients(ours(depths), segformer_b0(depths), mit.segformer_transformers())


@each_depth
@at_each_size
def test_mit_b0_has_the_features_of_smp(depths, size):
    module = oracles.smp().encoders.get_encoder("mit_b0", weights=None)
    for i, units in enumerate(depths, 1):
        setattr(module, f"block{i}", getattr(module, f"block{i}")[:units])
    check_eval(
        encoders.build("mit_b0", depths=depths),
        module,
        mit.mit_smp(),
        [size],
        ours=lambda pyramid: pyramid,
        theirs=lambda features: features[2:],
    )


# b1 is wider, as its number of parameters below says; b2 to b5 have its widths and more blocks.
@pytest.mark.parametrize("name", some_slow(SIZES, [name for name in SIZES if name != "b0"]))
def test_every_size_has_the_weights_of_transformers(name):
    torch, transformers = oracles.torch(), oracles.transformers()
    with torch.device("meta"):
        module = transformers.SegformerForSemanticSegmentation(config(name))
    state = {k: np.broadcast_to(np.float32(0), v.shape) for k, v in module.state_dict().items()}
    model = models.build("segformer", num_classes=7, features=SIZES[name][2], encoder=f"mit_{name}")
    variables = variable_shapes(model, (1, 64, 64, 3))
    converted = pretrained.convert(state, mit.segformer_transformers())
    flat = pretrained.flatten(variables)
    assert {path: x.shape for path, x in converted.items()} == {path: x.shape for path, x in flat.items()}
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "features", "published"),
    [
        ("b0", 256, 3.8),
        ("b1", 256, 13.7),
        ("b2", 768, 27.5),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("b3", 768, 47.3), ("b4", 768, 64.1), ("b5", 768, 84.7))
        ),
    ],
)
def test_parameters_are_the_papers(name, features, published):
    """Xie et al. 2021, Table 1, in millions for the 150 classes of ADE20K."""
    model = models.build("segformer", num_classes=150, features=features, encoder=f"mit_{name}")
    assert abs(count_parameters(model) / 1e6 - published) < 0.06


def test_the_names_of_files_are_known(tmp_path):
    """transformers saves under the names of the hub's files, which are not those of its modules."""
    transformers = oracles.transformers()
    from safetensors.numpy import load_file

    module = transformers.SegformerForSemanticSegmentation(config("b0"))
    module.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert "segformer.encoder.block.0.0.attention.self.query.weight" in state
    inside, saved = state_of(module), pretrained.convert(state, mit.segformer_transformers())
    for path, x in pretrained.convert(inside, mit.segformer_transformers()).items():
        np.testing.assert_array_equal(x, saved[path])


def test_the_classifier_of_a_file_is_left_out():
    transformers = oracles.transformers()
    module = transformers.SegformerForImageClassification(config("b0"))
    load(encoders.build("mit_b0"), module, mit.mit_classifier())


def pvt_v2(**fields):
    module = oracles.timm().create_model("pvt_v2_b0", **fields)
    module.forward = lambda x: module.forward_intermediates(x, intermediates_only=True)
    return module


def test_pvt_v2_has_the_features_and_gradients_of_timm():
    """At a size of which nothing divides a side. Of their dropped rows none are met: reductions round down in both."""
    torch, form = oracles.torch(), {"depths": (1, 2), "mlp_ratios": (8, 4)}
    module = pvt_v2(**form, embed_dims=(8, 16), num_heads=(1, 2), sr_ratios=(4, 2), num_classes=2)
    draw(module)
    encoder = encoders.build("pvt_v2_b0", **form, widths=(8, 16), heads=(1, 2), reductions=(4, 2), drop_path=0.0)
    variables, x, rules = load(encoder, module, mit.pvt_v2_timm()), images(69, 90), mit.pvt_v2_timm()
    levels = module(nchw(x))
    weights = [torch.randn(level.shape) for level in levels]
    sum((level * weight).mean() for level, weight in zip(levels, weights)).backward()

    def loss(params):
        pyramid = encoder.apply({"params": params}, x, train=True)
        return sum(jnp.mean(level * nhwc(weight)) for level, weight in zip(pyramid, weights)), pyramid

    gradient = jax.jit(jax.grad(loss, has_aux=True), compiler_options=FAST_COMPILE)
    found, pyramid = gradient(variables["params"])
    for mine, theirs in zip(pyramid, levels, strict=True):
        assert_close(mine, nhwc(theirs))
    named = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
    found, expected = pretrained.flatten({"params": found}), pretrained.convert(named, rules)
    largest = max(np.abs(g).max() for g in expected.values())
    assert set(found) == set(expected)
    for path, g in expected.items():
        assert np.abs(found[path] - g).max() <= 1e-3 * np.abs(g).max() + 1e-5 * largest, path


def as_authors(state):
    """timm's names of PVTv2 -> those of the authors' files, which count the parts of stages from 1."""
    theirs = {}
    for name, x in state.items():
        name = name.replace("mlp.dwconv", "mlp.dwconv.dwconv").replace("patch_embed", "patch_embed1")
        name = re.sub(r"stages\.(\d)\.(downsample|blocks|norm)", lambda found: of_stage(*found.groups()), name)
        theirs[name] = x
    return theirs


def of_stage(stage, part):
    return {"downsample": "patch_embed", "blocks": "block", "norm": "norm"}[part] + str(int(stage) + 1)


def test_files_of_the_authors_of_pvt_v2_are_known():
    form = {"depths": (1, 2), "mlp_ratios": (8, 4)}
    module = pvt_v2(**form, embed_dims=(8, 16), num_heads=(1, 2), sr_ratios=(4, 2), num_classes=2)
    draw(module)
    encoder = encoders.build("pvt_v2_b0", **form, widths=(8, 16), heads=(1, 2), reductions=(4, 2))
    state, variables = state_of(module), variable_shapes(encoder, (1, 64, 64, 3))
    lists = [known.rules() for known in catalogue.encoder_formats("pvt_v2_b0")]
    theirs = as_authors(state)
    assert {"block2.1.mlp.dwconv.dwconv.bias", "patch_embed2.norm.weight", "norm1.bias", "head.bias"} <= set(theirs)
    found, expected = (pretrained.merge(variables, pretrained.rename(each, lists)) for each in (theirs, state))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


PVT_V2 = (3_666_760, 14_009_000, 25_362_856, 45_238_696, 62_556_072, 81_956_008)


@pytest.mark.parametrize("n", some_slow(range(6), range(1, 6)))
def test_every_pvt_v2_has_the_weights_of_timm(n):
    """By the shapes; the counts of parameters with the classifier are those that timm's documentation rounds."""
    torch = oracles.torch()
    with torch.device("meta"):
        module = oracles.timm().create_model(f"pvt_v2_b{n}")
    state = {k: np.broadcast_to(np.float32(0), v.shape) for k, v in module.state_dict().items()}
    encoder = encoders.build(f"pvt_v2_b{n}")
    pretrained.merge(variable_shapes(encoder, (1, 64, 64, 3)), pretrained.convert(state, mit.pvt_v2_timm()))
    assert count_parameters(encoder) + 1000 * encoder.widths[-1] + 1000 == PVT_V2[n]


def test_a_stage_needs_all_its_numbers():
    encoder = encoders.build("mit_b0", depths=[1, 1, 1])
    with pytest.raises(ValueError, match="depths needs 4 numbers"):
        jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
