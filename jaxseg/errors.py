"""The error of a configuration, apart from `jaxseg.config`, so that raising it needs no ml_collections."""


class ConfigError(ValueError):
    """A configuration that cannot work: the message is one sentence for the user."""
