"""Norms of gradients by parameter: their values, `gradients.jsonl`, the order of layers, and the picture."""

import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxseg import losses
from jaxseg.build import build_parts
from jaxseg.config import default_config, differences, update
from jaxseg.errors import ConfigError
from jaxseg.run import gradients
from jaxseg.run.load import override_free
from jaxseg.run.report import Reporter, read_log
from jaxseg.state import init_state
from jaxseg.step import make_train_step


class TwoLayers(nn.Module):
    """f[b,h,w,c] -> f32[b,h,w,2]."""

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        x = jnp.tanh(nn.Dense(3, name="first")(image))
        return nn.Dense(2, name="second")(x), {"aux": ()}


def test_the_norms_are_those_of_the_gradient_at_the_parameters_before_the_step(key: jax.Array) -> None:
    model, tx = TwoLayers(), optax.sgd(0.5)
    loss = losses.make_loss("cross_entropy", num_classes=2)
    state = init_state(model, tx, key, (2, 2, 3))
    batch = {
        "image": jax.random.normal(key, (4, 2, 2, 3)),
        "label": jax.random.randint(key, (4, 2, 2), 0, 2),
    }
    _, metrics = make_train_step(model, tx, loss, gradients=True)(state, batch, key)

    def value(params: Any) -> jax.Array:
        return loss(model.apply({"params": params}, batch["image"])[0], batch["label"])

    expected = {
        f"{layer}/{name}": float(np.sqrt(np.sum(np.square(np.asarray(leaf, np.float64)))))
        for layer, leaves in jax.grad(value)(state.params).items()
        for name, leaf in leaves.items()
    }
    assert metrics["gradients"].keys() == expected.keys() and len(expected) == 4
    for name, norm in expected.items():
        assert float(metrics["gradients"][name]) == pytest.approx(norm, rel=1e-5), name
    assert float(metrics["grad_norm"]) == pytest.approx(np.sqrt(sum(n**2 for n in expected.values())), rel=1e-5)
    _, plain = make_train_step(model, tx, loss)(state, batch, key)
    assert "gradients" not in plain


def report(workdir: Path, start: int, stop: int) -> None:
    numbers = {name: jnp.float32(1.0) for name in ("loss", "grad_norm", "param_norm", "learning_rate")}
    with Reporter(workdir, every=4, tensorboard=False, stream=io.StringIO()) as reporter:
        reporter.start(start, 10)
        for step in range(start + 1, stop + 1):
            norms = {"a/kernel": jnp.float32(step), "b/bias": jnp.float32(np.nan)}
            reporter.train(step, {**numbers, "confusion": jnp.eye(2, dtype=jnp.int32), "gradients": norms}, images=8)


def test_the_first_step_and_the_log_steps_are_kept_once(tmp_path: Path) -> None:
    report(tmp_path, 0, 9)
    file = tmp_path / "gradients.jsonl"
    assert [record["step"] for record in read_log(file)] == [1, 4, 8]
    assert json.loads(file.read_text().splitlines()[1]) == {"step": 4, "norms": {"a/kernel": 4.0, "b/bias": None}}
    report(tmp_path, 3, 10)  # the run was killed and resumes from a checkpoint
    assert [record["step"] for record in read_log(file)] == [1, 4, 8, 10]


def tiny(**values: Any) -> Any:
    config = default_config()
    update(config, model__name="resunet", model__args={"widths": (4, 6)}, data__size=(8, 8), **values)
    return config


def test_layers_are_in_the_order_in_which_an_image_meets_them() -> None:
    names = gradients.layers(build_parts(tiny(), 3))
    assert all(name.endswith("/kernel") for name in names)
    short = [name.removesuffix("/kernel") for name in names]
    stages = list(dict.fromkeys("/".join(name.split("/")[:2]) for name in short))
    assert stages == ["encoder/stage0", "encoder/stage1", "decoder/stage0", "head"]
    first = [name.rpartition("/")[2] for name in short if name.startswith("encoder/stage0/")]
    assert first == ["conv1", "conv2", "shortcut"]
    assert gradients.of_layers({"a": 2.0, "b": 0.0}, ("b", "a", "c")) == pytest.approx(
        [np.nan, 2.0, np.nan], nan_ok=True
    )


def test_a_run_is_drawn(tmp_path: Path, drawn: None) -> None:
    config = tiny()
    gradients.draw_run(build_parts(config, 3), tmp_path)
    assert not list(tmp_path.iterdir())
    update(config, log__gradients=True)
    names = gradients.layers(build_parts(config, 3))
    lines = [{"step": step, "norms": {name: step + i for i, name in enumerate(names)}} for step in (1, 5, 6)]
    (tmp_path / "gradients.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    gradients.draw_run(build_parts(config, 3), tmp_path)
    assert (tmp_path / "gradients.png").read_bytes().startswith(b"\x89PNG")


def test_the_key_belongs_to_the_run() -> None:
    """The step that reports gradients is another program, so its results may differ in the last bits."""
    assert differences(tiny(), tiny(log__gradients=True)) == ["log.gradients: False -> True"]
    assert differences(tiny(), tiny(log__every=3)) == []
    with pytest.raises(ConfigError, match=r"log\.gradients belongs to the trained run"):
        override_free(tiny(), ["--config.log.gradients=true"])
