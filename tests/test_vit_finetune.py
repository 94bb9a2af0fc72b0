"""The five ways to fine-tune a vision transformer: each starts from weights, trains what it says, and learns."""

import jax
import numpy as np
import pytest
from helpers.marks import some_slow
from helpers.parity import FAST_COMPILE
from helpers.tiny_run import make_run
from helpers.tiny_training import ROOT

from jaxseg.build import build_parts
from jaxseg.config import command, update, validate
from jaxseg.data import make_source
from jaxseg.errors import ConfigError
from jaxseg.run.load import load_run
from jaxseg.run.weights import initial_state, plan_weights
from jaxseg.state import by_path

EXPERIMENT = ROOT / "experiments" / "vit_finetune.py"
ENCODER = {"width": 8, "depth": 2, "num_heads": 2, "patch": 4, "grid": (4, 4)}
WAYS = ("decay", "frozen", "probe", "lora", "eomt")


def tiny(way, weights="", **changes):
    config = command.load_experiment(f"{EXPERIMENT}:{way}")
    small = {"encoder_args": ENCODER}
    if config.model.name == "dpt":
        small |= {"features": 8, "widths": (8, 8)}
    if way == "eomt":
        small |= {"queries": 7, "blocks": 1, "up_steps": 1, "anneal_start": 0, "anneal_end": 1}
    update(config, model__args={**config.model.args.to_dict(), **small}, model__encoder_weights=str(weights))
    update(config, data__size=(16, 16), data__shapes_train=8, data__shapes_val=8, steps=12, schedule__warmup=0)
    update(config, augment__zoom=(1.0, 1.0), augment__shear=0.0, augment__flip_horizontal=0.0, **changes)
    return config


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run of the first way, to start from."""
    return make_run(tmp_path_factory.mktemp("base") / "vit", tiny("decay"))


@pytest.fixture(scope="module")
def batch():
    source = make_source(tiny("decay"), "train")
    examples = [source[i] for i in range(8)]
    return {name: np.stack([each[name] for each in examples]) for name in ("image", "label")}


@pytest.mark.parametrize("way", some_slow(WAYS, {"frozen", "eomt"}))
def test_each_way_trains_what_it_says_and_learns(base, batch, way):
    config = tiny(way, base, optimizer__learning_rate=0.01)
    validate(config)
    parts = build_parts(config, 6)
    state, [origin] = initial_state(parts, jax.random.key(0), plan_weights(parts))
    assert str(base) in str(origin)
    encoder = by_path(load_run(base).state.params["encoder"])
    before = jax.device_get(state.params)
    started = by_path(before["encoder"])
    assert len(encoder) > 20 and all(np.array_equal(started[path], value) for path, value in encoder.items())
    step = jax.jit(parts.train_step(), compiler_options=FAST_COMPILE)
    losses = []
    for _ in range(12):
        state, metrics = step(state, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0], losses
    changed = {
        path for path, value in by_path(state.params).items() if not np.array_equal(value, by_path(before)[path])
    }
    whole = [path for path in changed if path.startswith("encoder/")]
    if way in ("frozen", "probe", "lora"):
        assert not whole
    else:
        assert any("block1/" in path for path in whole) and any("stem" in path for path in whole)
    assert any(path.startswith("lora/") for path in changed) == (way == "lora")
    others = {path.split("/")[0] for path in changed} - {"encoder", "lora"}
    assert others if way in ("frozen", "eomt") else others == {"head"}


def test_the_ways_are_arguments_with_a_data_set_or_without():
    for arg, network, source, size in (
        ("", "linear_head", "shapes", (64, 64)),
        (":lora", "linear_head", "shapes", (64, 64)),
        (":frozen-folder", "dpt", "folder", (518, 518)),
        (":eomt-camvid", "eomt", "camvid", (360, 480)),
        (":folder", "linear_head", "folder", (518, 518)),
    ):
        config = command.load_experiment(f"{EXPERIMENT}{arg}")
        assert (config.model.name, config.data.source) == (network, source), arg
        assert tuple(config.data.size) == size
        assert config.model.encoder_weights == {"": "", ":lora": "runs/vit"}.get(arg, "dinov2")
    with pytest.raises(ConfigError, match=r"no variant 'prob'.*probe"):
        command.load_experiment(f"{EXPERIMENT}:prob-folder")
    with pytest.raises(ConfigError, match=r"no variant 'folders'.*folder"):
        command.load_experiment(f"{EXPERIMENT}:probe-folders")


def test_weights_that_cannot_be_had_are_refused_in_a_sentence(monkeypatch, tmp_path):
    """The published ones without the Hub, and those of a run that has not been trained."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for arg, expected in (("lora-folder", "facebook/dinov2-base"), ("lora", "runs/vit")):
        config = command.load_experiment(f"{EXPERIMENT}:{arg}")
        update(config, data__size=(28, 28))
        with pytest.raises(ConfigError, match=expected):
            plan_weights(build_parts(config, 6))
