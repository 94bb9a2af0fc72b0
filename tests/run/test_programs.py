"""The programs of a training are traced once."""

import dataclasses

import jax
import numpy as np

from jaxseg import build
from jaxseg.config import default_config, update
from jaxseg.run.programs import make_programs
from jaxseg.run.weights import initial_state


def test_the_first_step_and_the_initialisation_find_their_traces():
    config = default_config()
    update(config, model__name="cnn", model__args={"widths": (4,)}, data__size=(8, 8), batch_size=8)
    update(config, compile__options={"xla_backend_optimization_level": 0}, steps=3, schedule__warmup=0)
    strategy = build.make_strategy(config)
    parts = build.build_parts(config, 3)
    traces = []

    def augment(key, image, label):
        traces.append(image.shape)
        return parts.augment(key, image, label)

    counted = dataclasses.replace(parts, augment=augment)
    programs = make_programs(counted, strategy)
    assert len(traces) == 1
    state, _ = initial_state(counted, jax.random.key(0), init=programs.init)
    assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, programs.state)
    batch = {"image": np.zeros((8, 8, 8, 3), np.uint8), "label": np.zeros((8, 8, 8), np.uint8)}
    key = strategy.put_key(jax.random.key(1))
    state, _ = programs.train_step(strategy.put_state(state), strategy.put_batch(batch), key)
    programs.train_step(state, strategy.put_batch(batch), key)
    assert len(traces) == 1
