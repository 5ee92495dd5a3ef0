"""Checks of options that the architectures share."""

from __future__ import annotations

from keras_seq.errors import UserError


def check_sizes(*, dropout: float = 0.0, **sizes: int) -> None:
    """Refuses sizes below 1 and shares outside 0 to 1, in words.

    Args:
        dropout: A share.
        **sizes: Numbers of units, layers, steps or heads by their option's name.

    Raises:
        UserError: If one is out of range.

    Example:
        >>> check_sizes(width=8, depth=0)
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: depth is 0: give a whole number of at least 1
    """
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} is {value!r}: give a whole number of at least 1")
    check_shares(dropout=dropout)


def check_shares(**shares: float) -> None:
    """Refuses shares outside 0 to below 1, in words.

    Args:
        **shares: Of units that are dropped, by their option's name.

    Raises:
        UserError: If one is out of range.

    Example:
        >>> check_shares(dropout=0.1, attention_dropout=1.0)
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: attention_dropout is 1.0: give a share from 0 to below 1
    """
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise UserError(f"{name} is {value!r}: give a share from 0 to below 1")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a word that is not one of the choices.

    Args:
        name: The option's name.
        value: What came.
        choices: What is allowed.

    Raises:
        UserError: If it is not allowed.

    Example:
        >>> check_choice("norm", "sandwich", ("pre", "post"))
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: norm is 'sandwich': give one of pre, post
    """
    if value not in choices:
        raise UserError(f"{name} is {value!r}: give one of {', '.join(choices)}")
