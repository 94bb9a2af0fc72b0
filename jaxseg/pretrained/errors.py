"""The one error of reading and fitting weights."""


class WeightsError(ValueError):
    """Weights that cannot be had, read or used: the message is one sentence for the user."""
