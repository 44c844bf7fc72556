"""negprobe's exceptions; each message says what is wrong, what was expected and what to do.

A `NegprobeWarning` marks results that are defined but hard to interpret.
"""


class NegprobeError(Exception):
    """Base class of all errors below: an input that negprobe cannot work with."""


class ModelError(NegprobeError):
    """A model could not be found, read or converted."""


class InputError(NegprobeError):
    """A text, token tensor, shape or argument value that is not valid."""


class StatementError(NegprobeError):
    """A statement pair, its spans, or a file of pairs cannot be used."""


class PatchingError(NegprobeError):
    """The requested patch does not exist for this model, pair or objective."""


class TooFewPairsError(PatchingError):
    """There are too few pairs, or too few that the model tells apart, to search a circuit."""


class ViewError(NegprobeError):
    """A figure or page cannot draw its input."""


class StudyError(NegprobeError):
    """A study folder is in use, belongs to another study, is damaged, or cannot be written to."""


class ArgumentError(NegprobeError, TypeError):
    """An argument has the wrong type."""


class NegprobeWarning(UserWarning):
    """A result is defined but hard to interpret, for example because words are not in the model's vocabulary."""


class UnknownWordsWarning(NegprobeWarning):
    """Words of the statements are not in the model's vocabulary."""
