"""What all forms of attention over long sequences ask of their arguments."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def check_long(
    q: Any,
    k: Any,
    v: Any,
    *,
    mask: Any = None,
    bias: Any = None,
    dropout: float = 0.0,
    seed: Any = None,
    block: int | None = None,
    window: int | None = None,
) -> None:
    """Refuses arguments of attention that do not go together, and says what is wanted.

    Args:
        q: (B, H, T, D).
        k: (B, G, S, D).
        v: (B, G, S, Dv).
        mask: (B, S) or None.
        bias: (2 M + 1, H), (H,) or None.
        dropout: 0 to below 1.
        seed: Anything but None where there is dropout.
        block: At least 1, or None.
        window: At least 0, or None.

    Raises:
        ValueError: If they do not.

    Example:
        >>> import numpy as np
        >>> x = np.zeros((1, 2, 5, 4))
        >>> check_long(x, x, x, bias=np.zeros((4, 2)))
        Traceback (most recent call last):
        ...
        ValueError: bias has the shape (4, 2): give a table (2 M + 1, 2) or slopes (2,)
    """
    shapes = [tuple(x.shape) for x in (q, k, v)]
    if any(len(shape) != 4 for shape in shapes):
        raise ValueError(
            f"q, k and v have the shapes {shapes[0]}, {shapes[1]} and {shapes[2]}: give "
            "(B, heads, steps, head width)"
        )
    heads, groups = shapes[0][1], shapes[1][1]
    if heads % groups or shapes[2][1] != groups:
        raise ValueError(
            f"{heads} heads of queries cannot share {groups} heads of keys and {shapes[2][1]} of "
            "values: give as many values as keys, and a multiple of them of queries"
        )
    if shapes[0][3] != shapes[1][3]:
        raise ValueError(
            f"queries of width {shapes[0][3]} and keys of width {shapes[1][3]} have no product: "
            "give one width"
        )
    if mask is not None and len(mask.shape) != 2:
        raise ValueError(f"mask has the shape {tuple(mask.shape)}: give (B, S), one for all steps")
    if bias is not None:
        shape = tuple(bias.shape)
        if shape != (heads,) and (len(shape) != 2 or shape[1] != heads or shape[0] % 2 == 0):
            raise ValueError(
                f"bias has the shape {shape}: give a table (2 M + 1, {heads}) or slopes ({heads},)"
            )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}: give 0 to below 1")
    if dropout and seed is None:
        raise ValueError(f"dropout is {dropout} and there is no seed: give a number, or dropout=0")
    if block is not None and block < 1:
        raise ValueError(f"block is {block}: give at least 1, or None")
    if window is not None and window < 0:
        raise ValueError(f"window is {window}: give at least 0")


def seed_pair(seed: Any) -> Any:
    """Returns the seed as two numbers.

    Args:
        seed: A number, an int tensor (2,), or a `keras.random.SeedGenerator`, which moves on.

    Returns:
        (2,) int32 tensor.

    Example:
        >>> import numpy as np
        >>> np.asarray(seed_pair(3))
        array([3, 0], dtype=int32)
    """
    if isinstance(seed, keras.random.SeedGenerator):
        seed = seed.next()
    if isinstance(seed, int):
        seed = [seed, 0]
    return ops.cast(seed, "int32")
