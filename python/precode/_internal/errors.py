"""Exceptions: everything precode refuses is a `PrecodeError` and also the built-in kind it resembles."""


class PrecodeError(Exception):
    """Base of every error that precode raises about its arguments or its work."""


class PrecodeValueError(PrecodeError, ValueError):
    """A value is outside what its argument allows; the message names the value and the remedy."""


class PrecodeIndexError(PrecodeValueError, IndexError):
    """There is no item of that number; the message names how many there are."""


class PrecodeShapeError(PrecodeError, ValueError):
    """Two arguments do not fit together; the message names both shapes."""


class PrecodeTypeError(PrecodeError, TypeError):
    """An argument has the wrong type; the message names the type that came."""


class UnsupportedError(PrecodeError, RuntimeError):
    """The request is valid, but what was chosen to carry it out cannot."""


class DivergenceWarning(RuntimeWarning):
    """Networks have left the finite numbers in training; the message names them, the epoch and the remedy."""


class TicketWarning(UserWarning):
    """A ticket says less than it seems to; the message names the tensors and the reason."""


class PrecodeFileError(PrecodeError, OSError):
    """A file cannot be read or written, or does not hold what it should; the message names it and the remedy."""
