"""TransUNet against its published parameters, and written out in torch."""

import pytest
from helpers.marks import some_slow
from helpers.papers import compare
from helpers.tiny_models import ENCODERS, TINY, tiny
from helpers.variables import count_parameters, shapes

from jaxseg import models
from jaxseg.models import encoders


@pytest.mark.slow
def test_parameters_are_as_published():
    """105.28 million for RGB and the nine classes of Synapse, as later papers count them."""
    assert count_parameters(models.build("transunet", num_classes=9)) == 105_277_081


def dense(t, x, name):
    return x @ t.leaves[f"{name}/kernel"] + t.leaves[f"{name}/bias"]


def normed(t, x, name):
    return t.f.layer_norm(x, x.shape[-1:], t.leaves[f"{name}/scale"], t.leaves[f"{name}/bias"], 1e-6)


def transformer(t, x):
    """One block of two heads over all pixels, with a learned position each (Chen 2021, eqs. 1-3)."""
    patches = t.conv(x, "transformer/stem/patch")
    b, c, h, w = patches.shape
    x = patches.flatten(2).transpose(1, 2) + t.leaves["transformer/stem/position"]
    y = normed(t, x, "transformer/block1/norm1")
    parts = [dense(t, y, f"transformer/block1/attention/{name}") for name in ("query", "key", "value")]
    query, key, value = (part.reshape(b, h * w, 2, -1).transpose(1, 2) for part in parts)
    weights = t.torch.softmax(query @ key.transpose(2, 3) / query.shape[-1] ** 0.5, -1)
    x = x + dense(t, (weights @ value).transpose(1, 2).flatten(2), "transformer/block1/attention/out")
    y = t.f.gelu(dense(t, normed(t, x, "transformer/block1/norm2"), "transformer/block1/expand"))
    x = x + dense(t, y, "transformer/block1/reduce")
    return normed(t, x, "transformer/norm").transpose(1, 2).reshape(b, c, h, w)


def test_the_network_is_figure_1():
    def network(t, x):
        skips = []
        for i in range(3):
            x = t.f.max_pool2d(x, 2) if i else x
            for j in (1, 2):
                x = t.layer(x, f"encoder/stage{i}/conv{j}")
            skips.append(x)
        x = t.layer(transformer(t, x), "bottom")
        for i in (1, 0):
            x = t.torch.cat([t.f.interpolate(x, scale_factor=2, mode="bilinear"), skips[i]], 1)
            for j in (1, 2):
                x = t.layer(x, f"decoder/stage{i}/conv{j}")
        return t.conv(x, "head", padding=1)

    # The table of positions has the size of the features, 2x3.
    compare(tiny("transunet"), network, size=(8, 12))


FAMILIES = {encoders.family(name): name for name in encoders.names() if encoders.family(name) != "vit"}
QUICK = [FAMILIES[name] for name in ("convnext", "mit", "resnet", "swin")]


@pytest.mark.parametrize("name", some_slow(FAMILIES.values(), set(FAMILIES.values()) - set(QUICK)))
def test_every_family_of_encoders_fits_with_the_default_widths(name):
    """The encoder that is named is the one that is built, and the decoder reaches the size of the image."""
    assert models.build("transunet", num_classes=2, encoder=name).encoder() == encoders.build(name)
    fields = {key: value for key, value in TINY["transunet"].items() if key not in ("widths", "encoder_args")}
    model = models.build("transunet", num_classes=2, **fields | {"encoder": name, "encoder_args": ENCODERS[name]})
    _, logits, out = shapes(model, (1, 33, 47, 3))
    levels = len(model.encoder().strides)
    assert logits.shape == (1, 33, 47, 2) and {f"encoder/stage{i}" for i in range(levels)} <= set(out)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="transunet has a transformer of its own"):
        shapes(models.build("transunet", num_classes=2, encoder="vit_small"), (1, 32, 32, 3))
    with pytest.raises(ValueError, match=r"TransUNet: widths \(4,\) are too few"):
        shapes(tiny("transunet").clone(widths=(4,)), (1, 32, 32, 3))
