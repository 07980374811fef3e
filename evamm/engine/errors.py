"""Mistakes in a config or on a command line."""


class ConfigError(ValueError):
    """A setting cannot be used; the message is one sentence that names it and the remedy."""
