"""The one error of the recorder."""

__all__ = ["RecorderError"]


class RecorderError(ValueError):
    """A model, a batch or a folder that cannot be recorded: where, what was expected, what was found."""
