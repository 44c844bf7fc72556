"""The errors negprobe raises on purpose; each message says what was wrong, what was expected and what to do.

Results that are defined but of limited meaning come with a `NegprobeWarning`.
"""


class NegprobeError(Exception):
    """Any input negprobe cannot work with; every error below is one."""


class ModelError(NegprobeError):
    """A model could not be found, read or converted."""


class InputError(NegprobeError):
    """A text, token tensor or shape the model cannot take."""


class StatementError(NegprobeError):
    """A statement pair, its spans, or a file of pairs is not usable."""


class PatchingError(NegprobeError):
    """A patch was asked for that the model, pair or objective does not have."""


class TooFewPairsError(PatchingError):
    """There are too few pairs, or too few that the model tells apart, to search a circuit."""


class ViewError(NegprobeError):
    """A figure or page was given something it cannot draw."""


class StudyError(NegprobeError):
    """A study's folder is in use, another study's, damaged, or cannot be written to."""


class ArgumentError(NegprobeError, TypeError):
    """An argument is of another type than the function takes."""


class NegprobeWarning(UserWarning):
    """A result is defined but of limited meaning, for example because words are not in the model's vocabulary."""


class UnknownWordsWarning(NegprobeWarning):
    """Words of the statements are not in the model's vocabulary."""
