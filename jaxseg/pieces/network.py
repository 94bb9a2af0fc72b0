"""The network of a configuration, and what the training step applies."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jaxseg import models
from jaxseg.adversarial import Discriminator, SegmenterWithDiscriminator
from jaxseg.config import ConfigDict
from jaxseg.consistency import DroppedFeatures
from jaxseg.distillation import DistilledNetwork
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.nn import LayerCRF, Quantisation, WithCosineHead, WithCRF, WithQuantisedInputs
from jaxseg.optim import make_selection
from jaxseg.state import Learner
from jaxseg.tuning import Lora, TunedNetwork


def make_model(config: ConfigDict, num_classes: int, axis_name: str | None = None) -> nn.Module:
    """Returns the model of the configuration; `axis_name` is the strategy's, None outside `pmap`."""
    network, quantisation = _make_network(config, num_classes, axis_name), make_quantisation(config)
    if quantisation is None or not quantisation.activations:
        return network
    return WithQuantisedInputs(network, quantisation, axis_name)


def _make_network(config: ConfigDict, num_classes: int, axis_name: str | None) -> nn.Module:
    try:
        network = models.build(
            config.model.name,
            num_classes=num_classes,
            dtype=config.dtype,
            axis_name=axis_name,
            **config.model.args.to_dict(),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error
    cosine = config.model.head == "cosine"
    if cosine:
        _require_head(config, network)
    if not config.model.crf:
        return WithCosineHead(network) if cosine else network
    if models.can_generate(network):
        raise ConfigError(
            f"model.crf refines classes, but model.name={config.model.name} makes images; leave it empty."
        )
    try:
        crf = LayerCRF.parse(config.model.crf)
    except ArgumentError as error:
        raise ConfigError(f"model.crf: {error}") from error
    return WithCRF(network, crf, tuple(config.data.mean), tuple(config.data.std), cosine)


def _require_head(config: ConfigDict, network: nn.Module) -> None:
    """Raises ConfigError for a network whose logits do not come from a head that can be a cosine head."""
    if config.model.name in models.NEED_ALL_CLASSES or models.can_generate(network):
        raise ConfigError(
            f"model.head=cosine needs a network that ends in a 1x1 convolution, and model.name={config.model.name} "
            "does not; leave model.head at linear, or give another network."
        )


def make_lora(config: ConfigDict) -> Lora | None:
    """Returns the low-rank adapters of the configuration, or None."""
    c = config.lora
    return Lora(c.rank, c.alpha, tuple(c.targets)) if c.rank else None


def make_quantisation(config: ConfigDict) -> Quantisation | None:
    """Returns what of the network has few bits, or None."""
    c = config.quantise
    return Quantisation(c.weights, c.activations, tuple(c.skip)) if c.weights else None


def make_learner(config: ConfigDict, model: nn.Module, axis_name: str | None = None) -> Learner:
    """Returns what the training step applies: the model, with its frozen parts, adapters, few bits, features that are
    dropped, discriminator and teacher. `axis_name` is the strategy's, None outside `pmap`."""
    norms, quantisation = config.optimizer.frozen_norms, make_quantisation(config)
    tuned = TunedNetwork(model, make_selection(config), norms, make_lora(config), quantisation)
    plain = tuned.selection.everything and norms == "none" and tuned.lora is None and quantisation is None
    network: Any = model if plain else tuned
    c = config.adversarial
    if config.semi.method and config.semi.features:
        return DroppedFeatures(network, config.semi.features, axis_name)
    if c.weight:
        judge = Discriminator(tuple(c.widths), jnp.dtype(config.dtype).type)
        network = SegmenterWithDiscriminator(network, judge, c.image)
    return _with_teacher(config, network)


def _with_teacher(config: ConfigDict, network: Learner) -> Learner:
    """Returns the learner with the place of a teacher, if the configuration has one; `build.Parts` adds the teacher."""
    c = config.distill
    if not c.teacher:
        return network
    if c.kind != "feature":
        return DistilledNetwork(network)
    return DistilledNetwork(network, None, c.stage, c.teacher_stage or c.stage, c.channels)
