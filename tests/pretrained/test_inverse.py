"""Rules backwards: each array of ours gets the name and the layout from which the rules lead back to it."""

from typing import Any

import numpy as np
import pytest
from helpers.marks import some_slow
from helpers.variables import variable_shapes

from jaxseg import models
from jaxseg.errors import WeightsError
from jaxseg.models import encoders
from jaxseg.pretrained import catalogue, convert, flatten, inverse, loading
from jaxseg.pretrained.rules import Rule, conv, conv_transpose, dense, layer, norm, pointwise
from jaxseg.pretrained.smp import _halves_exchanged


def shapes_of(module: Any) -> dict[str, tuple[int, ...]]:
    return {path: tuple(x.shape) for path, x in flatten(variable_shapes(module, (1, 64, 64, 3))).items()}


def check(shapes: dict[str, tuple[int, ...]], rules: list[Rule], names: str = ".*") -> set[str]:
    """The rules lead from the names and shapes that they give backwards to ours; returns the names."""
    made = inverse.entries(shapes, rules, names)
    state = {entry.name: np.broadcast_to(np.float32(0), entry.shape) for entry in made}
    assert len(state) == len(made)
    assert {path: x.shape for path, x in convert(state, rules).items()} == shapes
    return set(state)


FEW = ("resnet18d", "vgg11_bn", "mobilenet_v2")  # the others read the same functions backwards
KNOWN = [name for name in encoders.names() if catalogue.encoder_formats(name)]


@pytest.mark.parametrize("name", some_slow(KNOWN, [name for name in KNOWN if name not in FEW]))
def test_the_rules_of_every_encoder_are_read_backwards(name):
    shapes = shapes_of(encoders.build(name))
    assert all(check(shapes, known.rules()) for known in catalogue.encoder_formats(name))


NETWORKS = [
    known for family in catalogue.families() for known in family.network_formats if known.model != "mask2former"
]
OVER = {"segformer": "mit_b0", "lraspp": "mobilenet_v3_large", "dpt": "vit_base", "eomt": "vit_base_dinov2_reg"}


QUICK = [known for known in NETWORKS if known.model in ("unet", "deeplabv3plus")]


@pytest.mark.parametrize(
    "known",
    some_slow(NETWORKS, [known for known in NETWORKS if known not in QUICK]),
    ids=lambda known: f"{known.model}-{known.peer.partition('_')[0]}",
)
def test_the_rules_of_every_network_are_read_backwards(known):
    encoder = OVER[known.model] if known.model in OVER else "resnet18"
    form = known.form_over(encoder)
    model = models.build(known.model, num_classes=3, encoder=encoder, **form.fields)
    *_, rules = (candidate.rules for candidate in loading.candidates([known], encoder, model))  # a ViT: those of timm
    assert check(shapes_of(model), rules, known.names_over(encoder))


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (conv, (5, 4, 3, 2)),
        (conv, (3, 3, 3, 3)),
        (conv_transpose, (4, 5, 2, 2)),
        (dense, (5, 4)),
        (dense, (4, 4)),
        (pointwise, (5, 4)),
        (_halves_exchanged, (3, 8, 1, 1)),
        (lambda x: x[:, 0, 0], (6, 1, 1)),
        (lambda x: x[None], (3, 4)),
        (lambda x: np.split(x.T, 2, 1), (8, 3)),
        (lambda x: np.split(x.T, 2, 1), (8, 4)),
        (lambda x: [dense(part) for part in np.split(x, 3)], (12, 5)),
        (lambda x: np.split(x, 3), (9,)),
    ],
)
def test_an_array_is_laid_out_as_it_was(transform, shape):
    theirs = RNG.normal(size=shape).astype(np.float32)
    ours = transform(theirs)
    single = isinstance(ours, np.ndarray)
    named = {"params/a": ours} if single else {f"params/{i}": x for i, x in enumerate(ours)}
    rules = [Rule("w", "params/a" if single else tuple(named), transform)]
    (back,) = inverse.invert(named, rules).values()
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, theirs)


def test_alternatives_give_the_name_that_fits_the_others():
    """The stem of a ResNet is conv1, and conv1.6 where conv1 is a sequence."""
    rules = [*layer(r"conv1(?:\.6)?", "stem"), *layer(r"conv1\.0", "stem1"), *norm(r"n[._](\d+)", "n{1}")]
    stem = {"params/stem/kernel": (3, 3, 3, 4), "params/n7/scale": (4,), "batch_stats/n7/mean": (4,)}
    made = {"conv1.weight", "n.7.weight", "n.7.running_mean", "n.7.num_batches_tracked"}
    assert {entry.name for entry in inverse.entries(stem, rules)} == made
    deep = {**stem, "params/stem1/kernel": (3, 3, 3, 4)}
    found = {entry.name for entry in inverse.entries(deep, rules, r"(?!n\.).*")}
    assert found == {"conv1.0.weight", "conv1.6.weight", "n_7.weight", "n_7.running_mean", "n_7.num_batches_tracked"}
    assert inverse.invert({"batch_stats/n7/mean": np.ones(4)}, rules)["n.7.num_batches_tracked"] == 0


def test_what_has_no_place_is_named():
    with pytest.raises(WeightsError, match=r"^2 arrays have no place there: params/b/bias, params/b/kernel\.$"):
        shapes = {"params/a/kernel": (1, 1, 2, 2), "params/b/bias": (2,), "params/b/kernel": (1, 1, 2, 2)}
        inverse.entries(shapes, layer("a", "a"))
    with pytest.raises(WeightsError, match=r"the rule of params/a/kernel does not say how its array lies in a\.weight"):
        inverse.entries({"params/a/kernel": (3, 2)}, layer("a", "a"))
