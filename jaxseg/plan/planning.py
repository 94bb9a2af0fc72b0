"""The plan of a data set: the choices of all rules in the order in which they are written, and their configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxseg.config import ConfigDict, default_config, set_key, update, validate
from jaxseg.errors import counted
from jaxseg.plan import measuring, rules
from jaxseg.plan.fingerprint import Fingerprint
from jaxseg.plan.rules import Choice, Guess, Machine


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        choices: {heading: choices}, in the order in which they are written.
        given: keys of the command line, which hold over the choices.
        notes: a sentence for each thing to look at before a training.
        guess: what the images are.
    """

    choices: Mapping[str, tuple[Choice, ...]]
    given: Mapping[str, Any]
    notes: tuple[str, ...]
    guess: Guess

    def config(self) -> ConfigDict:
        """Returns the configuration that the written plan gives; raises ConfigError if a given key does not fit."""
        config = default_config()
        for choices in self.choices.values():
            for choice in choices:
                update(config, **{key.replace(".", "__"): value for key, value in choice.keys.items()})
        for key, value in self.given.items():
            set_key(config, key, value)
        validate(config, trained=True)
        return config

    def with_choice(self, heading: str, *choices: Choice) -> "Plan":
        """Returns the plan with other choices under a heading."""
        return replace(self, choices={**self.choices, heading: choices})


def make_plan(
    data: Fingerprint,
    machine: Machine,
    *,
    directory: str,
    given: Mapping[str, Any] | None = None,
    kind: rules.Kind | None = None,
    minutes: float = 0.0,
) -> Plan:
    """Returns the plan for a data set on a machine; compiles its step for the memory, and runs it where `minutes` ask.

    Args:
        data: the fingerprint of the data set.
        machine: on which it trains, this one.
        directory: `data.dir`.
        given: keys that a person has set, which hold whatever a rule says.
        kind: what the images are; None: guessed.
        minutes: how long the training may take; 0: by passes over the data.

    Raises:
        ConfigError: if a given key does not fit, or nothing fits into memory.
    """
    guess = rules.guess_kind(data) if kind is None else Guess(kind, "as --kind says")
    plan = draft(data, machine, guess, directory, given or {})
    config = plan.config()
    fits = measuring.fitting(config, _num_classes(config, data), data.bits)
    keys: dict[str, Any] = {"batch_size": fits.batch_size} | ({"remat": True} if fits.remat else {})
    why = rules.batch_words(fits.batch_size, machine)
    if fits.reduced:
        why = f"{why} More does not fit into memory{': remat keeps less of it' if fits.remat else ''}."
    plan = plan.with_choice("batch", Choice(keys, f"{why} The compiled step takes {fits.memory}, which fits."))
    return _with_length(plan, data, minutes)


def draft(data: Fingerprint, machine: Machine, guess: Guess, directory: str, given: Mapping[str, Any]) -> Plan:
    """Returns the plan as the rules alone give it, before its step is compiled; pure."""
    fit = rules.choose_fit(data, machine)
    size = given["data.size"] if "data.size" in given else fit.keys["data.size"]
    how = given["data.fit"] if "data.fit" in given else fit.keys["data.fit"]
    batch = rules.choose_batch(machine, size)
    network = rules.choose_network(data, machine, size)
    length = rules.choose_steps(data.train, batch.keys["batch_size"], _first_width(network))
    passes = length.keys["steps"] * batch.keys["batch_size"] / data.train
    choices = {
        "data": (
            Choice({"data.source": "folder", "data.dir": directory}, _contents(data)),
            rules.choose_values(data),
        ),
        "size": (fit, *rules.choose_sampling(data, how, size)),
        "network": (network,),
        "batch": (batch,),
        "loss": (rules.choose_loss(data),),
        "augmentation": (rules.choose_augmentation(data, guess, passes, fit),),
        "length": (length,),
        "evaluation": (rules.choose_evaluation(data, machine, fit),),
    }
    return Plan(choices, dict(given), tuple(notes_of(data)), guess)


def _with_length(plan: Plan, data: Fingerprint, minutes: float) -> Plan:
    """Returns the plan with the steps for its batch, or for some minutes, and the augmentation for their passes."""
    config = plan.config()
    width, batch = _first_width(plan.choices["network"][0]), config.batch_size
    length = rules.choose_steps(data.train, batch, width)
    if "steps" in plan.given:
        length = rules.given_steps(plan.given["steps"], width)
    elif minutes:
        seconds = measuring.seconds_of_step(config, _num_classes(config, data), data.bits)
        evaluation = seconds.step * rules.steps_of_evaluation(
            data, plan.choices["size"][0], batch, tuple(config.data.size)
        )
        length = rules.steps_in(minutes, seconds.step, seconds.compiling, evaluation, width)
    plan = plan.with_choice("length", length)
    passes = plan.config().steps * batch / data.train
    fit = plan.choices["size"][0]
    return plan.with_choice("augmentation", rules.choose_augmentation(data, plan.guess, passes, fit))


def _first_width(network: Choice) -> int:
    return network.keys["model.args"]["widths"][0]


def _num_classes(config: ConfigDict, data: Fingerprint) -> int:
    return config.model.num_classes or len(data.classes)


def _contents(data: Fingerprint) -> str:
    splits = ", ".join(f"{count} in {split}" for split, count in data.images.items())
    classes = ", ".join(f"{each.name} {each.share:.1%}" for each in data.classes[:12])
    more = f" and {len(data.classes) - 12} more" if len(data.classes) > 12 else ""
    return f"{counted(sum(data.images.values()), 'image')} ({splits}). Shares of the pixels: {classes}{more}."


def notes_of(data: Fingerprint) -> list[str]:
    """Returns a sentence for each thing that a person should look at before a long training."""
    notes = []
    if data.num_leaks:
        one, other = data.leaks[0]
        notes.append(
            f"{counted(data.num_leaks, 'image')} outside the training split are nearly the same as a training image, "
            f"such as {one} and {other}: the score is too good for other images."
        )
    notes += data.videos
    absent = [each.name for each in data.classes if not each.share]
    if absent:
        notes.append(f"No training image has {', '.join(absent[:8])}: the network cannot learn such a class.")
    split, held_out = list(data.images.items())[-1]
    if len(data.images) > 1 and held_out < 10:
        notes.append(f"{split} has only {counted(held_out, 'image')}: its score changes with each of them.")
    train = next(iter(data.images))
    copies = data.near_duplicates[train]
    if copies > 0.05 * data.train:
        such = f", such as {data.alike[0][0]} and {data.alike[0][1]}" if data.alike else ""
        notes.append(
            f"{copies} of {counted(data.train, 'training image')} are nearly the same as another one{such}: there is "
            "less to learn from than their number says."
        )
    if data.brightest < 0.25:
        notes.append(f"No value is above {data.brightest:.1%} of {data.whole_range}.")
    return notes
