"""Pairs of network and loss: what cannot learn is refused before training, and what does not learn is said."""

import gc
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers.tiny_run import short_config, tiny_config

from jaxseg.arguments import MIXING_OPTIONS
from jaxseg.build import build_parts
from jaxseg.config import default_config, set_key, update, validate
from jaxseg.data.reading import STOP
from jaxseg.data.shapes import ShapesSource
from jaxseg.errors import ConfigError
from jaxseg.inference import samples
from jaxseg.nn.norm import _note_single_values, make_norm
from jaxseg.run.check import _NEEDS, check, check_loss, note_without_effect
from jaxseg.train import train


def examine(network: str, terms: str, **values: object) -> None:
    config = tiny_config()
    update(config, model__name=network, loss__terms=terms)
    update(config, model__args={}, data__mean=(0.5,), data__std=(0.5,), **values)
    check_loss(build_parts(config, 3))


@pytest.mark.parametrize(
    ("network", "terms", "message"),
    [
        (
            "unet",
            "generator",
            "the term generator reads the output 'verdicts' of model.name=dcgan, which model.name=unet",
        ),
        ("unet", "dice + mask_classification", "reads the output 'queries' of model.name=eomt or mask2former, which"),
        (
            "mask2former",
            "reconstruction",
            "of model.name=autoencoder, which model.name=mask2former does not have; give",
        ),
        ("dcgan", "cross_entropy", "lacks discriminator and generator, by which alone model.name=dcgan learns; give"),
        ("dcgan", "generator + cross_entropy", "lacks discriminator, by which alone"),
        ("autoencoder", "cross_entropy", r"give --config.loss.terms='reconstruction \+ cross_entropy'"),
        ("encnet", "semantic_encoding", "has no term that trains the logits of model.name=encnet; add one, such as"),
    ],
)
def test_a_loss_that_cannot_teach_the_network_is_refused(network: str, terms: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        examine(network, terms)


@pytest.mark.parametrize(
    ("network", "terms", "note"),
    [
        (
            "mask2former",
            "cross_entropy",
            "lacks mask_classification, so that a part of model.name=mask2former does not",
        ),
        ("encnet", "cross_entropy + dice", "lacks semantic_encoding"),
        ("dcgan", "generator + discriminator", "so that its classes and mIoU mean nothing; cross_entropy trains them"),
        ("autoencoder", "reconstruction", "has no term that trains the logits of model.name=autoencoder"),
        ("mask2former", "mask_classification", ""),
        ("encnet", "cross_entropy + semantic_encoding", ""),
        ("dcgan", "generator + discriminator + dice", ""),
        ("unet", "dice", ""),
    ],
)
def test_what_does_not_learn_is_said(network: str, terms: str, note: str, caplog: pytest.LogCaptureFixture) -> None:
    examine(network, terms)
    assert note in caplog.text if note else not caplog.text


def test_keys_without_effect_are_said(caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_config()
    note_without_effect(config)
    assert not caplog.text
    update(config, data__palette=((0, 0, 0), (1, 1, 1)), optimizer__name="adam", optimizer__momentum=0.5)
    note_without_effect(config)
    assert "data.palette has no effect with data.source=shapes; data.source=folder reads it." in caplog.text
    assert "optimizer.momentum has no effect with optimizer.name=adam" in caplog.text
    for values in (
        {"data__dir": "somewhere"},
        {"data__cache": "somewhere"},
        {"augment__crop_max_share": 0.5},
        {"augment__crop_balanced": 0.5},
        {"augment__saturation": 0.5, "data__channels": 1},
        {"adversarial__weight": 0.1, "adversarial__semi_threshold": 0.5},
        {"schedule__name": "constant", "schedule__end": 0.1},
        {"semi__features": 0.5},
        {"model__weights_checkpoint": "last"},
        {"augment__mixup_alpha": 1.0, "augment__rand_magnitude": 7.0, "augment__copy_paste_of": "classes"},
        {"augment__copy_paste_classes": (1,), "augment__copy_paste_scale": (0.5, 1), "augment__copy_paste_flip": 0},
        {"eval__multiple": 8},
        {"data__source": "folder", "data__division": "former", "data__val_group": "p"},
    ):
        caplog.clear()
        update(config := default_config(), **values)
        note_without_effect(config)
        keys = [key.replace("__", ".") for key in values if key.replace("__", ".") in _NEEDS]
        assert keys and all(f"{key} has no effect here: it needs " in caplog.text for key in keys)
        assert caplog.text.count("has no effect") == len(keys)
    caplog.clear()
    update(config := default_config(), data__source="folder", data__division="former", data__group="p")
    note_without_effect(config)
    assert caplog.messages == ["data.group keeps nothing on one side of data.val_fraction with data.division=former."]
    caplog.clear()
    update(
        config := default_config(),
        data__fit="crop",
        model__name="unet",
        model__args={"encoder": "resnet18", "dropout": 0.1},
    )
    note_without_effect(config)
    assert caplog.messages[0].startswith("model.args.dropout has no effect here") and len(caplog.messages) == 1
    caplog.clear()
    update(config, model__args={"encoder": None, "dropout": 0.1})  # its own
    note_without_effect(config)
    assert not caplog.messages


def test_every_option_of_mixing_says_what_it_needs() -> None:
    assert {f"augment.{name}" for name in MIXING_OPTIONS} <= set(_NEEDS)


def test_a_class_that_is_pasted_is_refused_once_the_data_say_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The shapes have six; before they are read only a number of `model.num_classes` is known."""

    class Reached(Exception): ...

    def stop(*_: object, **__: object) -> None:
        raise Reached

    for number, expected in ((5, Reached), (6, ConfigError)):
        config = short_config(augment__copy_paste=0.5, augment__copy_paste_classes=(1, number))
        check(config, before_training=True)
        monkeypatch.setattr("jaxseg.train.make_programs", stop)
        with pytest.raises(expected) as raised:
            train(config, tmp_path / str(number), "")
    assert "copy_paste_classes has 6, and the classes are numbered from 0 to 5" in str(raised.value)
    update(config, model__num_classes=6)
    with pytest.raises(ConfigError, match="copy_paste_classes has 6, and the classes are numbered from 0 to 5"):
        check(config)


def test_a_weight_of_auxiliary_heads_that_there_are_not_is_said(caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_config(batch_size=8, loss__aux_weight=0.5)
    update(config, eval__batch_size=8)
    check(config)
    assert caplog.messages == ["loss.aux_weight has no effect here: model.name=cnn has no auxiliary head."]


def test_an_instance_norm_of_single_values_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for norm, pixels, said in (("instance", 1, True), ("instance", 2, False), ("group", 1, False)):
        caplog.clear()
        _note_single_values.cache_clear()
        layer, x = make_norm(norm)(name=None), jnp.zeros((2, pixels, 1, 16))
        variables = layer.init(jax.random.key(0), x)
        for _ in range(2):
            jax.eval_shape(lambda v, x, m=layer: m.apply(v, x, train=True), variables, x)
        assert caplog.text.count("returns its bias whatever its input is") == said, "once, however often it is traced"


def test_class_weights_that_no_term_takes_are_refused_before_the_data_are_read() -> None:
    config = tiny_config()
    update(config, loss__terms="dice", loss__class_weights="median_frequency")
    with pytest.raises(ConfigError, match="No term of the loss 'dice' takes class_weights"):
        check(config)


def test_thumbnails_are_kept_while_their_source_is() -> None:
    source = ShapesSource("val", 3, (8, 8))
    first = samples._real_thumbnails(source, 2, (8, 8), STOP)
    assert samples._real_thumbnails(source, 2, (8, 8), STOP) is first
    assert samples._real_thumbnails(source, 3, (8, 8), STOP).shape[0] == 3
    seen = weakref.ref(source)
    del source
    gc.collect()
    assert seen() is None


def test_several_wrong_keys_are_all_named() -> None:
    """The warm-up, which has to agree with the steps, hides none of the values that are wrong by themselves."""
    changes = {
        "steps": 5,
        "schedule.warmup": 50,
        "schedule.name": "exponential",
        "model.name": "unett",
        "optimizer.name": "adamm",
        "data.source": "foldr",
    }
    config = default_config()
    for key, value in changes.items():
        set_key(config, key, value)
    validate(config, trained=True)
    with pytest.raises(ConfigError) as raised:
        check(config)
    lines = str(raised.value).split("\n")
    starts = ("There is no data set data.source='foldr'", "model: ", "optimizer.name must be", "schedule.end must be")
    assert len(lines) == 5 and all(line.startswith(s) for line, s in zip(lines, (*starts, "schedule.warmup is 50")))
    set_key(config, "batch_size", 0)
    set_key(config, "schedule.power", -1.0)
    with pytest.raises(ConfigError, match=r"^batch_size must be .*\nschedule.power must be [^\n]*$"):
        validate(config)
