"""HRNet against timm, and OCRNet against its equations and the same layers in torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles, parity
from helpers.papers import Torch, compare, conv, normed
from helpers.variables import count_parameters, drawn

from jaxseg import models
from jaxseg.models import encoders
from jaxseg.models.encoders.hrnet import HRNet
from jaxseg.models.ocrnet import gather_objects
from jaxseg.pretrained import hrnet as rules

# Parameters of timm's networks without what follows the branches.
SIZES = {18: 9_562_260, 32: 29_305_536, 48: 65_325_120}


def small_timm():
    """timm's network with fewer modules and blocks."""
    hrnet = oracles.timm().models.hrnet

    def stage(modules, branches):
        widths = tuple(4 * 2**i for i in range(branches))
        return dict(
            num_modules=modules,
            num_branches=branches,
            block_type="BASIC",
            num_blocks=(1,) * branches,
            num_channels=widths,
            fuse_method="SUM",
        )

    first = dict(
        num_modules=1, num_branches=1, block_type="BOTTLENECK", num_blocks=(1,), num_channels=(64,), fuse_method="SUM"
    )
    config = dict(stem_width=64, stage1=first, stage2=stage(1, 2), stage3=stage(2, 3), stage4=stage(1, 4))
    return hrnet.HighResolutionNet(config, head="")


def exchange_at_any_size(module):
    """Lets timm's branches of odd sizes meet: what comes from a coarser one is enlarged to the finer, not doubled."""
    torch = oracles.torch()
    types = oracles.timm().models.hrnet

    def forward(self, x):
        inner, fused = [branch(y) for branch, y in zip(self.branches, x)], []
        for i, layers in enumerate(self.fuse_layers):
            moved = [
                torch.nn.functional.interpolate(f[:2](y), inner[i].shape[2:], mode="nearest") if j > i else f(y)
                for j, (f, y) in enumerate(zip(layers, inner))
            ]
            fused.append(torch.relu(sum(moved)))
        return fused

    for part in module.modules():
        if isinstance(part, types.HighResolutionModule) and part.num_branches > 1:
            part.forward = functools.partial(forward, part)
    return module


# As timm has it (of 61 and 93 pixels 16 and 24 are left in the finest branch), and with odd sizes in every branch.
@pytest.mark.parametrize(
    ("size", "changed"),
    [
        ((61, 93), False),
        pytest.param((32, 64), False, marks=pytest.mark.slow),
        ((65, 79), True),
        pytest.param((37, 101), True, marks=pytest.mark.slow),
    ],
)
def test_pyramid_is_timms(size, changed):
    torch = oracles.torch()
    module = exchange_at_any_size(small_timm()) if changed else small_timm()

    class Stages(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x):
            m = self.inner
            return m.stages(m.act2(m.bn2(m.conv2(m.act1(m.bn1(m.conv1(x)))))))

    moved = [r._replace(pattern=r"inner\." + r.pattern) for r in rules.timm((1, 2, 1), 1, 1)]
    encoder = HRNet(4, bottlenecks=1, modules=(1, 2, 1), blocks=1)
    parity.check_eval(encoder, Stages(), moved, [size], ours=list, theirs=list)


def test_published_member_takes_timms_weights():
    encoder = encoders.build("hrnet_w18")
    assert encoder.widths == (18, 36, 72, 144) and encoder.strides == (4, 8, 16, 32)
    module = oracles.timm().create_model("hrnet_w18", pretrained=False)
    variables = parity.load(encoder, module, rules.timm())
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == SIZES[18]


@pytest.mark.slow  # between the two whose numbers are counted here
def test_counts_are_timms():
    assert encoders.build("hrnet_w48").widths == (48, 96, 192, 384)
    assert count_parameters(encoders.build("hrnet_w32")) == SIZES[32]


def test_forms_of_the_exchange_agree_on_shapes_alone():
    x = np.random.default_rng(0).normal(size=(1, 37, 50, 3)).astype(np.float32)
    encoder = HRNet(4, stem=4, bottlenecks=1, modules=(1,), blocks=1)
    variables = drawn(encoder, x)
    nearest, bilinear = (
        jax.jit(encoder.clone(upsample=form).apply, compiler_options=parity.FAST_COMPILE)(variables, x)
        for form in ("nearest", "bilinear")
    )
    assert [f.shape for f in nearest] == [f.shape for f in bilinear] == [(1, 10, 13, 4), (1, 5, 7, 8)]
    assert np.abs(nearest[0] - bilinear[0]).max() > 0
    np.testing.assert_array_equal(nearest[1], bilinear[1])


def test_ocrnet_count():
    # Yuan 2020 over HRNet-W48 with 19 classes: the pyramid has 15 * 48 = 720 channels.
    head = normed(1, 720, 720) + conv(1, 720, 19)  # the first guess
    head += normed(3, 720, 512)
    head += normed(1, 512, 256) + normed(1, 256, 256)  # query
    head += normed(1, 512, 256) + normed(1, 256, 256)  # key
    head += normed(1, 512, 256) + normed(1, 256, 512)  # value, out
    head += normed(1, 1024, 512) + conv(1, 512, 19)
    total = count_parameters(models.build("ocrnet", num_classes=19))
    assert total == SIZES[48] + head
    assert round(total / 1e6, 1) == 70.4  # mmsegmentation gives 70.37 M for HRNetV2p-W48 with OCR.


def test_ocrnet_is_its_layers():
    def network(t: Torch, x):
        levels = []
        for i in (0, 1):
            x = t.layer(x if i == 0 else t.f.max_pool2d(x, 2), f"encoder/stage{i}/conv1")
            levels.append(x)
        size = levels[0].shape[2:]

        def up(v):
            return t.f.interpolate(v, size=size, mode="bilinear", align_corners=False)

        x = t.torch.cat([levels[0], up(levels[1])], 1)
        regions = t.conv(t.layer(x, "aux_project", 0), "aux_head")
        x = t.layer(x, "project")
        shares = regions.flatten(2).softmax(2)
        objects = (shares @ x.flatten(2).transpose(1, 2)).transpose(1, 2)[..., None]  # [b, c, k, 1]
        query = t.layer(t.layer(x, "attention/query1", 0), "attention/query2", 0).flatten(2).transpose(1, 2)
        key = t.layer(t.layer(objects, "attention/key1", 0), "attention/key2", 0).flatten(2)
        value = t.layer(objects, "attention/value", 0).flatten(2).transpose(1, 2)
        context = ((query @ key / 4**0.5).softmax(2) @ value).transpose(1, 2).reshape(len(x), 4, *size)
        x = t.torch.cat([t.layer(context, "attention/out", 0), x], 1)
        return t.conv(t.layer(x, "fuse", 0), "head")

    fields = {"encoder": "plain", "encoder_args": {"widths": [4, 6], "convs": 1}}
    compare(models.build("ocrnet", num_classes=3, width=8, key_width=4, **fields), network)


def test_auxiliary_logits_are_the_first_guess():
    model = models.build("ocrnet", num_classes=3, width=8, key_width=4, encoder="plain", encoder_args={"widths": [4]})
    x = np.random.default_rng(0).normal(size=(1, 6, 7, 3)).astype(np.float32)
    variables = drawn(model, x)
    rngs = {"dropout": jax.random.key(0)}
    (_, out), _ = jax.jit(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"], rngs=rngs))(variables)
    assert out["aux"][0].shape == (1, 6, 7, 3) and out["objects"].shape == (1, 3, 1, 8)
    assert jax.eval_shape(lambda v: model.apply(v, x), variables)[1]["aux"] == ()


def test_objects_are_means_over_their_regions():
    rng = np.random.default_rng(0)
    x, regions = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 2))
    regions[0, :, :, 1] = -100.0
    regions[0, 1, 2, 1] = 100.0  # one pixel is the whole region
    objects = gather_objects(jnp.asarray(x, jnp.float32), jnp.asarray(regions, jnp.float32))
    np.testing.assert_allclose(objects[0, 1, 0], x[0, 1, 2], rtol=1e-5)
    shares = np.exp(regions[1]).reshape(12, 2)
    expected = (shares / shares.sum(0)).T @ x[1].reshape(12, 5)
    np.testing.assert_allclose(objects[1, :, 0], expected, rtol=1e-4, atol=1e-6)
