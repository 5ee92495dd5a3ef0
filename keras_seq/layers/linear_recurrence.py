"""Linear recurrences over time as parallel scans.

A recurrence whose next state is linear in the one before needs no loop over all steps. Here the
steps are cut into chunks of 16. The first pass walks through all chunks side by side and finds
what each does to a state; these pairs are a recurrence again, 16 times shorter; the second pass
walks through the chunks once more, now from the states they begin with. All is products and sums
of the numbers given: nothing is divided by a product of decays, which would be zero soon.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

_CHUNK = 16  # on a CPU as fast as 32, and the graph is half as large

# Tensors of one number: [real] or [real, imaginary].
Parts = list[Any]


def linear_scan(
    a: Any, b: Any, initial: Any = None, *, axis: int = 1, reverse: bool = False
) -> Any:
    """Computes ``h[t] = a[t] * h[t - 1] + b[t]`` for all t.

    On TensorFlow this is a scan in chunks, whose gradient is a scan the other way; its time grows
    with the number of steps alone. On other backends it is `keras.ops.associative_scan`. Decays of
    an absolute value up to 1 are what it is for: products of larger ones may leave the range of
    the type where a loop would not. It takes tensors, so it belongs inside of a layer.

    Args:
        a: What the state before is multiplied by, of b's shape or one that broadcasts to it. A pair
            of tensors for complex numbers: real and imaginary parts.
        b: What is added, for example (B, T, W). A pair if `a` is one.
        initial: The state before the first step, b's shape without the axis of time; None: zeros.
            A pair if `a` is one.
        axis: Which axis is time. Default 1.
        reverse: Whether time runs from the end: ``h[t] = a[t] * h[t + 1] + b[t]``.

    Returns:
        All states, of b's shape; a pair if `a` is one.

    Raises:
        ValueError: If only one of `a`, `b` and `initial` is a pair.

    Example:
        >>> import numpy as np
        >>> a, b = np.full((1, 4, 1), 0.5, "float32"), np.ones((1, 4, 1), "float32")
        >>> np.asarray(linear_scan(a, b))[0, :, 0]
        array([1.   , 1.5  , 1.75 , 1.875], dtype=float32)

    Reference:
        Blelloch 1990, Prefix Sums and Their Applications; Martin and Cundy 2018, Parallelizing
        Linear Recurrent Neural Nets Over Sequence Length.
    """
    given = {"a": a, "b": b} if initial is None else {"a": a, "b": b, "initial": initial}
    parts = {name: _parts(x) for name, x in given.items()}
    counts = {name: len(x) for name, x in parts.items()}
    if len(set(counts.values())) > 1 or counts["b"] > 2:
        raise ValueError(
            f"tensors that were given: {counts}; give one of each, or for complex numbers a pair "
            "of each"
        )
    axis = axis % len(parts["b"][0].shape)
    decays = [_like(x, parts["b"][0]) for x in parts["a"]]
    scan = _chunked_scan if keras.backend.backend() == "tensorflow" else _associative_scan
    found = scan(decays, parts["b"], parts.get("initial"), axis, reverse)
    return found[0] if len(found) == 1 else tuple(found)


def _parts(x: Any) -> Parts:
    x = x if isinstance(x, (tuple, list)) else [x]
    return [ops.convert_to_tensor(part) for part in x]


def _like(x: Any, other: Any) -> Any:
    """Repeats x where the other is larger."""
    known = None not in x.shape and None not in other.shape
    if known and tuple(x.shape) == tuple(other.shape):
        return x
    return ops.broadcast_to(x, ops.shape(other))


def times(p: Parts, q: Parts) -> Parts:
    """Multiplies numbers that are given by their parts.

    Args:
        p: One tensor, or the real and the imaginary one.
        q: As many, of shapes that broadcast.

    Returns:
        The parts of the product.

    Example:
        >>> times([1.0, 2.0], [3.0, 4.0])  # (1 + 2i) (3 + 4i)
        [-5.0, 10.0]
    """
    if len(p) == 1:
        return [p[0] * q[0]]
    return [p[0] * q[0] - p[1] * q[1], p[0] * q[1] + p[1] * q[0]]


def wide_dtype(dtype: str) -> str:
    """Returns the type in which long sums are kept: 32 bits or more.

    Args:
        dtype: In which a layer computes.

    Example:
        >>> wide_dtype("bfloat16"), wide_dtype("float64")
        ('float32', 'float64')
    """
    return "float64" if dtype == "float64" else "float32"


def zero_before_first(x: Any, mask: Any) -> Any:
    """Sets to zero what a row gives before its first real step.

    Args:
        x: (B, T, W).
        mask: (B, T) bool, True at real steps.

    Returns:
        A tensor like `x`.

    Example:
        >>> import numpy as np
        >>> mask = np.array([[False, True, False]])
        >>> np.asarray(zero_before_first(np.ones((1, 3, 1)), mask))[0, :, 0].tolist()
        [0.0, 1.0, 1.0]
    """
    shown = ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0
    return ops.where(ops.expand_dims(shown, -1), x, ops.zeros_like(x))


def _conjugate(p: Parts) -> Parts:
    return [p[0], *(-part for part in p[1:])]


def _next(a: Parts, h: Parts, b: Parts) -> Parts:
    return [x + y for x, y in zip(times(a, h), b, strict=True)]


def _associative_scan(a: Parts, b: Parts, initial: Parts | None, axis: int, reverse: bool) -> Parts:
    """The scan of Keras, for backends where it is compiled well."""
    if initial is not None:
        # The state before takes part as one step more.
        first = [ops.expand_dims(x, axis) for x in initial]
        ones = [ops.ones_like(first[0]), *(ops.zeros_like(x) for x in first[1:])]
        a, b = (_put_before(ones, a, axis, reverse), _put_before(first, b, axis, reverse))

    def both(before: tuple[Any, ...], after: tuple[Any, ...]) -> tuple[Any, ...]:
        n = len(b)
        decay = times(list(after[:n]), list(before[:n]))
        return (*decay, *_next(list(after[:n]), list(before[n:]), list(after[n:])))

    found = ops.associative_scan(both, (*a, *b), reverse=reverse, axis=axis)[len(b) :]
    if initial is not None:
        cut = [slice(None)] * len(b[0].shape)
        cut[axis] = slice(None, -1) if reverse else slice(1, None)
        found = [x[tuple(cut)] for x in found]
    return list(found)


def _put_before(first: Parts, x: Parts, axis: int, reverse: bool) -> Parts:
    pairs = zip(first, x, strict=True)
    return [ops.concatenate([y, f] if reverse else [f, y], axis) for f, y in pairs]


# ------------------------------------------------------------------------------------ TensorFlow


def _chunked_scan(a: Parts, b: Parts, initial: Parts | None, axis: int, reverse: bool) -> Parts:
    """The scan in chunks, with its gradient."""
    import tensorflow as tf

    shape, open_shape = b[0].shape, tf.shape(b[0])
    behind = shape[axis + 1 :]
    inner = math.prod(behind) if None not in behind else tf.reduce_prod(open_shape[axis + 1 :])
    steps = shape[axis] if shape[axis] is not None else open_shape[axis]
    # Known sizes are named, as LiteRT's converter wants those of what a loop reads.
    outer = -1 if None in shape[:axis] else math.prod(shape[:axis])
    a, b = ([tf.reshape(x, [outer, steps, inner]) for x in parts] for parts in (a, b))
    if initial is None:
        first = [tf.zeros_like(x[:, 0]) for x in b]
    else:
        first = [tf.reshape(tf.cast(x, b[0].dtype), [outer, inner]) for x in initial]
    n = len(b)

    @tf.custom_gradient
    def run(*given: Any) -> Any:
        a, b, first = list(given[:n]), list(given[n : 2 * n]), list(given[2 * n :])
        h = _in_chunks(a, b, first, reverse)

        def gradient(*d_h: Any) -> tuple[Any, ...]:
            # The gradient by a state goes back to the one before by the decay between them.
            back = _conjugate(a)
            zeros = [tf.zeros_like(x) for x in first]
            decays = [_moved(x, y, not reverse) for x, y in zip(back, zeros, strict=True)]
            d_b = _in_chunks(decays, list(d_h), zeros, not reverse)
            before = [_moved(x, y, reverse) for x, y in zip(h, first, strict=True)]
            d_a = times(_conjugate(before), d_b)
            place = -1 if reverse else 0
            d_first = times([x[:, place] for x in back], [x[:, place] for x in d_b])
            return (*d_a, *d_b, *d_first)

        return tuple(h), gradient

    return [tf.ensure_shape(tf.reshape(x, open_shape), shape) for x in run(*a, *b, *first)]


def _moved(x: Any, first: Any, backwards: bool) -> Any:
    """(O, T, I): what stood one step before, in the direction of time; `first` at the first."""
    import tensorflow as tf

    if backwards:
        return tf.concat([x[:, 1:], first[:, None]], axis=1)
    return tf.concat([first[:, None], x[:, :-1]], axis=1)


def _in_chunks(a: Parts, b: Parts, first: Parts, backwards: bool) -> Parts:
    """All states (O, T, I), of decays and drives (O, T, I) and the first state (O, I)."""
    import tensorflow as tf

    steps, inner = b[0].shape[1], b[0].shape[2]
    if steps is not None and steps <= _CHUNK:
        decays, drives = ([tf.unstack(x, axis=1) for x in parts] for parts in (a, b))
        return _walk(decays, drives, first, backwards, axis=1)
    length = tf.shape(b[0])[1] if steps is None else steps
    chunks = (length + _CHUNK - 1) // _CHUNK
    rows = -1 if b[0].shape[0] is None else b[0].shape[0]
    wide = tf.shape(b[0])[2] if inner is None else inner

    def cut(x: Any, padding: float) -> list[Any]:
        """Step t of all chunks, (O, chunks, I), for each t of a chunk."""
        if steps is None or steps % _CHUNK:
            missing = [[0, 0], [0, chunks * _CHUNK - length], [0, 0]]
            x = tf.pad(x, missing, constant_values=tf.cast(padding, x.dtype))
        return tf.unstack(tf.reshape(x, [rows, chunks, _CHUNK, wide]), axis=2)

    # The steps that fill the last chunk leave a state as it is.
    decays = [cut(x, 1.0 if i == 0 else 0.0) for i, x in enumerate(a)]
    drives = [cut(x, 0.0) for x in b]
    order = range(_CHUNK)[::-1] if backwards else range(_CHUNK)
    whole, end = [x[order[0]] for x in decays], [x[order[0]] for x in drives]
    for t in order[1:]:
        decay = [x[t] for x in decays]
        end = _next(decay, end, [x[t] for x in drives])
        whole = times(decay, whole)
    carry = _in_chunks if isinstance(chunks, int) else _in_a_loop
    after = carry(whole, end, first, backwards)
    before = [_moved(x, y, backwards) for x, y in zip(after, first, strict=True)]
    states = _walk(decays, drives, before, backwards, axis=2)
    states = [tf.reshape(x, [rows, chunks * _CHUNK, wide]) for x in states]
    return [x[:, :length] if steps is None or steps % _CHUNK else x for x in states]


def _walk(
    decays: list[list[Any]], drives: list[list[Any]], h: Parts, backwards: bool, axis: int
) -> Parts:
    """Goes step by step through lists of steps, and stacks the states."""
    import tensorflow as tf

    count = len(drives[0])
    found: list[Parts] = [[]] * count
    for t in range(count)[::-1] if backwards else range(count):
        h = _next([x[t] for x in decays], h, [x[t] for x in drives])
        found[t] = h
    return [tf.stack(list(x), axis=axis) for x in zip(*found, strict=True)]


def _in_a_loop(a: Parts, b: Parts, first: Parts, backwards: bool) -> Parts:
    """As `_in_chunks`, for a number of steps that is not known while the graph is made."""
    import tensorflow as tf

    steps = tf.shape(b[0])[1]
    given = [
        tf.TensorArray(x.dtype, steps, element_shape=(x.shape[0], x.shape[2])).unstack(
            tf.transpose(x, [1, 0, 2])
        )
        for x in (*a, *b)
    ]
    shape = tf.TensorShape((b[0].shape[0], b[0].shape[2]))
    found = [tf.TensorArray(x.dtype, steps, element_shape=shape) for x in b]
    n = len(b)

    def body(t: Any, h: Parts, found: list[Any]) -> tuple[Any, Parts, list[Any]]:
        place = steps - 1 - t if backwards else t
        now = [array.read(place) for array in given]
        h = [tf.ensure_shape(x, shape) for x in _next(now[:n], h, now[n:])]
        return t + 1, h, [array.write(place, x) for array, x in zip(found, h, strict=True)]

    first = [tf.ensure_shape(x, shape) for x in first]
    _, _, found = tf.while_loop(
        lambda t, *_: t < steps, body, (0, first, found), maximum_iterations=steps
    )
    return [tf.transpose(array.stack(), [1, 0, 2]) for array in found]
