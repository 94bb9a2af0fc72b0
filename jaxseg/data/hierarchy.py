"""Trees of classes: a file that says to which group each class belongs, and each group to which larger one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxseg.arguments import expanded
from jaxseg.errors import ConfigError, nearest
from jaxseg.files import read_json
from jaxseg.metrics import MOST_PAIRS


class Hierarchy(NamedTuple):
    """The groups of k classes at each level above them, coarsest first.

    Attributes:
        levels: for each level, the index of the group of each class.
        names: for each level, the names of its groups.
    """

    levels: tuple[tuple[int, ...], ...] = ()
    names: tuple[tuple[str, ...], ...] = ()


def read_parents(file: str | Path) -> dict[str, str]:
    """Returns {class or group: the group that it belongs to} of a JSON file of this form.

    Raises:
        ConfigError: if the file cannot be read, holds anything else, or has a circle.
    """
    path = expanded(file)
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"loss.hierarchy={path} cannot be read: {error}.") from error
    if not isinstance(content, dict) or not content or not all(isinstance(value, str) for value in content.values()):
        raise ConfigError(
            f"loss.hierarchy={path} must hold one JSON object, the group of each class and of each group that belongs "
            'to a larger one, such as {"car": "vehicle", "bus": "vehicle", "vehicle": "moving"}.'
        )
    for name in content:
        chain = _chain(name, content)
        if chain[-1] in chain[:-1]:
            circle = chain[chain.index(chain[-1]) :]
            raise ConfigError(f"loss.hierarchy={path} has a circle: {' -> '.join(circle)}.")
    return content


def hierarchy_of(parents: Mapping[str, str], classes: Sequence[str], file: str | Path) -> Hierarchy:
    """Returns the levels of a tree without circles, for the classes of the data.

    Level d has the ancestors at depth d below the roots. A class that is not as deep, or that the file does not name,
    is a group of its own there.

    Args:
        parents: from `read_parents`.
        classes: the names of the classes.
        file: for messages.

    Raises:
        ConfigError: if the file names something that is neither a class nor a group that a class belongs to, or there
            are more than 1024 classes.
    """
    if len(classes) > MOST_PAIRS:
        raise ConfigError(
            f"loss.hierarchy takes at most {MOST_PAIRS} classes, whose pixels are counted by pairs of classes, and the "
            f"data has {len(classes)}."
        )
    chains = [_chain(name, parents)[::-1] for name in classes]
    reached = {name for chain in chains for name in chain}
    for name in parents:
        if name not in reached:
            raise ConfigError(
                f"loss.hierarchy={expanded(file)} names {name!r}, which is neither one of the classes "
                f"({', '.join(classes)}) nor a group of one.{nearest(name, classes)}"
            )
    depth = max(map(len, chains)) - 1
    rows = [[chain[min(d, len(chain) - 1)] for chain in chains] for d in range(depth)]
    names = tuple(tuple(dict.fromkeys(row)) for row in rows)
    return Hierarchy(tuple(tuple(of.index(name) for name in row) for row, of in zip(rows, names)), names)


def _chain(name: str, parents: Mapping[str, str]) -> list[str]:
    """Returns the name, its group, the group of this, ... up to a root, or to the first that comes again."""
    chain = [name]
    while chain[-1] in parents and chain[-1] not in chain[:-1]:
        chain.append(parents[chain[-1]])
    return chain
