"""Scaled dot-product attention in the form that suits its length."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.layers.attention_weights import head_scores, head_values, masked_softmax, visible
from keras_seq.layers.blockwise import blockwise_attention
from keras_seq.layers.dropout import drawn_scale
from keras_seq.layers.long_checks import check_long, seed_pair
from keras_seq.layers.relative_bias import bias_between
from keras_seq.layers.sliding_window import sliding_window_attention

# Up to so many weights, 64 MB in float32, all are held at once, which is faster on a CPU; training
# needs some four times as much. A batch whose size is not known is taken for one of 16.
_MOST, _BATCH = 2**24, 16
# Queries of a block that are written out at once.
_ROWS = 512
_METHODS = ("auto", "plain", "blockwise", "window")


def dot_product_attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    mask: Any = None,
    causal: bool = False,
    window: int | None = None,
    bias: Any = None,
    dropout: float = 0.0,
    seed: Any = None,
    method: str = "auto",
    block: int | None = None,
    training: bool | None = None,
    return_weights: bool = False,
) -> Any:
    """Averages values by the softmax of scaled scores, and picks how by length and memory.

    The rule: ``"plain"``, all weights at once, on another backend than TensorFlow, for a mask
    (B, T, S), and for up to 2^24 weights in all heads and rows (4 heads of 2,048 steps; a batch
    whose size is unknown is taken for 16), or, where `block` is given, for so many steps. Beyond,
    ``"window"`` where there is a window and ``"blockwise"`` else. Those have two forms: in
    training, and where the length is unknown, a loop over tiles, in memory that grows with the
    length. In inference with a known length the blocks of queries are written out one after the
    other, in operators that every converter knows; an unknown length with a known batch is how a
    converter asks, and gets the plain form.

    Where the weights are to be returned, outside of a graph and for an unknown length all are
    computed at once. For long sequences in a graph they are computed beside the tiles, and as a
    graph leaves out what nobody reads, they cost nothing until somebody does.

    `method` overrides the choice between plain and tiles, not what a backend can do.

    Args:
        q: Queries, (B, H, T, D), not yet scaled.
        k: Keys, (B, G, S, D), H a multiple of G.
        v: Values, (B, G, S, Dv).
        mask: (B, S) bool, True at real keys, or (B, T, S); None: all.
        causal: Whether query t sees only keys up to t. Default False.
        window: How many steps before its own and after it a query sees; None: all.
        bias: (2 M + 1, H) or (H,), see `blockwise_attention`.
        dropout: On the weights, in training, 0 to below 1. Default 0.
        seed: See `blockwise_attention`.
        method: ``"auto"``, ``"plain"``, ``"blockwise"`` or ``"window"``. Default ``"auto"``.
        block: Most steps of a tile's sides; None: see the two functions.
        training: Whether gradients are wanted, and weights dropped. Default None: no.
        return_weights: Whether to return the weights too. Default False.

    Returns:
        (B, H, T, Dv), of the type of `q`, and with `return_weights` the weights (B, H, T, S),
        before dropout. A query without a key to see gets zeros.

    Raises:
        ValueError: If the method is unknown, or cannot do what is asked of it.

    Example:
        >>> import numpy as np
        >>> x = np.array([[[[1.0], [2.0], [9.0]]]], "float32")  # one head, three steps
        >>> for method in ("plain", "blockwise"):
        ...     y = dot_product_attention(x, x, x, causal=True, method=method)
        ...     print(np.asarray(y)[0, 0, :, 0].round(3))
        [1.    1.881 9.   ]
        [1.    1.881 9.   ]

    Reference:
        Vaswani et al. 2017, Attention Is All You Need.
    """
    whole = mask is not None and len(mask.shape) == 3
    used = dropout if training else 0.0
    flat = None if whole else mask
    check_long(q, k, v, mask=flat, bias=bias, dropout=used, seed=seed, block=block, window=window)
    method = _method(method, q, k, window, block, training, whole, return_weights)
    weights = None
    if method == "plain" or return_weights:
        steps, memory = ops.shape(q)[2], ops.shape(k)[2]
        valid = visible(mask, steps, memory, causal=causal, window=window)
        weights = _weights(q, k, v, valid, bias, (0, 0), training)
    if method == "plain":
        mixed = head_values(_dropped(weights, used, seed), v)
    elif not training and q.shape[2] is not None and k.shape[2] is not None:
        mixed = _blocks_of_rows(q, k, v, mask, causal, window, bias, block or _ROWS)
    else:
        options = {"mask": mask, "causal": causal, "bias": bias, "dropout": used, "seed": seed}
        if window is None:
            mixed = blockwise_attention(q, k, v, block=block, **options)
        else:
            mixed = sliding_window_attention(q, k, v, window=window, block=block, **options)
    return (mixed, weights) if return_weights else mixed


def _method(
    method: str,
    q: Any,
    k: Any,
    window: int | None,
    block: int | None,
    training: bool | None,
    whole: bool,
    return_weights: bool,
) -> str:
    """``"plain"`` or another."""
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}: give one of {', '.join(map(repr, _METHODS))}")
    if method == "window" and window is None:
        raise ValueError("method is 'window' and there is no window: say how many steps")
    if method == "blockwise" and window is not None:
        raise ValueError(f"method is 'blockwise' and window is {window}: give 'window' or 'auto'")
    if method in ("blockwise", "window") and whole:
        raise ValueError(f"method is {method!r}, which has no mask (B, T, S): give 'plain', 'auto'")
    if method == "plain" or whole or keras.backend.backend() != "tensorflow":
        return "plain"
    lengths = (q.shape[2], k.shape[2])
    if return_weights and method == "auto" and (None in lengths or _eager()):
        return "plain"
    if None in lengths:
        return "plain" if q.shape[0] is not None and not training else "tiles"
    count = (q.shape[0] or _BATCH) * q.shape[1] * lengths[0] * lengths[1]
    few = count <= _MOST if block is None else max(lengths) <= block
    return "plain" if method == "auto" and few else "tiles"


def _eager() -> bool:
    import tensorflow as tf

    return bool(tf.executing_eagerly())


def _weights(
    q: Any,
    k: Any,
    v: Any,
    valid: Any,
    bias: Any,
    starts: tuple[int, int],
    training: bool | None,
) -> Any:
    """All weights of these queries at once, (B, H, T, S)."""
    # The query is scaled before the product, so that float16 does not overflow in it.
    scores = head_scores(q * (q.shape[-1] ** -0.5), k)  # (B, H, T, S)
    if bias is not None:
        # In float32: what is small beside a score of 16 bits would be lost.
        query = ops.arange(ops.shape(q)[2], dtype="int32")[:, None] + starts[0]
        key = ops.arange(ops.shape(k)[2], dtype="int32")[None, :] + starts[1]
        scores = ops.cast(scores, "float32") + bias_between(bias, key - query)
    return ops.cast(masked_softmax(scores, valid, training=training), v.dtype)


def _dropped(weights: Any, dropout: float, seed: Any) -> Any:
    if not dropout:
        return weights
    if keras.backend.backend() == "tensorflow":
        return weights * drawn_scale(dropout, ops.shape(weights), seed_pair(seed), weights.dtype)
    # Two calls must not drop the same where a generator was given.
    key = seed if isinstance(seed, (int, keras.random.SeedGenerator)) else seed_pair(seed)
    return keras.random.dropout(weights, dropout, seed=key)


def _blocks_of_rows(
    q: Any, k: Any, v: Any, mask: Any, causal: bool, window: int | None, bias: Any, block: int
) -> Any:
    """The queries block after block, each with all the keys that it sees something of."""
    import tensorflow as tf

    q, k, v = (tf.convert_to_tensor(x) for x in (q, k, v))
    steps, memory = q.shape[2], k.shape[2]
    outputs: list[Any] = []
    for first in range(0, steps, block):
        last = min(first + block, steps)
        begin = 0 if window is None else max(first - window, 0)
        end = memory
        if causal or window is not None:
            end = min(end, last if causal else last + int(window or 0))
        if begin >= end:
            shape = [*ops.shape(q)[:2], last - first, v.shape[3]]
            outputs.append(ops.zeros(shape, q.dtype))
            continue
        # One after the other, or all blocks would be in memory at once.
        with tf.control_dependencies(outputs[-1:]):
            seen = None if mask is None else ops.convert_to_tensor(mask)[:, begin:end]
            valid = visible(
                seen, last - first, end - begin, causal=causal, window=window, starts=(first, begin)
            )
            rows = q[:, :, first:last]
            keys, values = k[:, :, begin:end], v[:, :, begin:end]
            weights = _weights(rows, keys, values, valid, bias, (first, begin), False)
            outputs.append(head_values(weights, values))
    return ops.concatenate(outputs, axis=2) if len(outputs) > 1 else outputs[0]
