"""The mapping that holds a configuration: an `ml_collections.ConfigDict` whose errors are sentences."""

from typing import Any

import ml_collections

from jaxseg.errors import ConfigError, nearest

# A group of keys is a plain dictionary, or a ConfigDict of ml_collections itself that an experiment made.
AnyConfigDict = ml_collections.ConfigDict
GROUPS = (dict, AnyConfigDict)


class KeyAccessError(ConfigError, AttributeError, KeyError, TypeError):
    """A key that a configuration does not have, or a value of another type than the key's.

    It is also each of the errors that `ml_collections.ConfigDict` raises for these, so that `hasattr`, `get` and
    callers that catch those work as with any ConfigDict.
    """

    __str__ = Exception.__str__  # KeyError would show the quotes of a repr


class ConfigDict(ml_collections.ConfigDict):
    """A ConfigDict that names the nearest key where one is unknown, and says what a value must be like.

    Of the two keys for the length of a run, `steps` and `epochs`, the one that is set later counts: `config.steps = 7`
    sets the epochs to 0.
    """

    def __init__(self, initial_dictionary: Any = None, *args: Any, **kwargs: Any):
        if isinstance(initial_dictionary, dict):
            initial_dictionary = {
                key: ConfigDict(value, *args, **kwargs) if isinstance(value, dict) else value
                for key, value in initial_dictionary.items()
            }
        super().__init__(initial_dictionary, *args, **kwargs)

    def __getattr__(self, attribute: str) -> Any:
        return super().__getattr__(attribute) if attribute.startswith("__") else self[attribute]

    def __getitem__(self, key: str) -> Any:
        try:
            return super().__getitem__(key)
        except KeyAccessError:  # of a group inside this one
            raise
        except KeyError:
            raise self._unknown(key) from None

    def __setattr__(self, attribute: str, value: Any) -> None:
        if hasattr(type(self), attribute):
            super().__setattr__(attribute, value)
        else:
            self[attribute] = value

    def __setitem__(self, key: str, value: Any) -> None:
        if self.is_locked and key not in self:
            raise self._unknown(key)
        is_length = key == "steps" and not isinstance(value, ml_collections.FieldReference)  # `get_ref` sets one
        replaces_epochs = is_length and key in self and "epochs" in self and bool(self["epochs"])  # not in a new copy
        try:
            super().__setitem__(key, ConfigDict(value) if isinstance(value, dict) else value)
        except TypeError as error:
            old = self[key]
            like = "is a group of keys" if isinstance(old, GROUPS) else f"must have a value like {old!r}"
            raise KeyAccessError(f"The config key {key!r} {like}, got {value!r}.") from error
        if replaces_epochs:
            super().__setitem__("epochs", 0.0)

    def update(self, *other: Any, **kwargs: Any) -> None:
        """Sets several keys; where there are both `steps` and `epochs` among them, the epochs count."""
        super().update(*other, **kwargs)
        for values in (*other, kwargs):
            if "steps" in values and "epochs" in values and values["epochs"]:
                self["epochs"] = values["epochs"]

    def _unknown(self, key: str) -> KeyAccessError:
        return KeyAccessError(f"There is no config key {key!r}.{nearest(key, map(str, self.keys()))}")
