"""The errors that a user can mend: one line, no traceback on the command line."""

from __future__ import annotations


class UserError(ValueError):
    """Something in the data, the options or a file that the user can put right.

    The message says what came, what was wanted and what to do. The command line prints it as one
    line and ends with exit code 2; from Python it is an ordinary `ValueError`.

    Example:
        >>> from keras_seq.errors import UserError
        >>> raise UserError("horizon is 0: give at least 1")
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: horizon is 0: give at least 1
    """
