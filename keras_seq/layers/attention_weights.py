"""What every attention is made of: who sees whom, the softmax, and the products of heads."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_seq.layers.steps import update


def causal_mask(query_steps: Any, memory_steps: Any) -> Any:
    """Tells which memory steps a query step may see: those up to its own position.

    Args:
        query_steps: T, a number or a scalar tensor.
        memory_steps: S, a number or a scalar tensor.

    Returns:
        (T, S) bool tensor.

    Example:
        >>> import numpy as np
        >>> np.asarray(causal_mask(2, 2)).tolist()
        [[True, False], [True, True]]
    """
    return ops.squeeze(visible(None, query_steps, memory_steps, causal=True), (0, 1))


def visible(
    mask: Any,
    query_steps: Any,
    memory_steps: Any,
    *,
    causal: bool = False,
    window: int | None = None,
    starts: tuple[int, int] = (0, 0),
) -> Any:
    """Tells which memory steps each query step may see.

    Args:
        mask: (B, S) bool, True at real steps of the memory, or (B, T, S); None: all.
        query_steps: T, a number or a scalar tensor.
        memory_steps: S, a number or a scalar tensor.
        causal: Whether query t sees only steps up to t. Default False.
        window: How many steps before its own and after it a query sees; None: all.
        starts: Where the first query and the first step of the memory stand. Default (0, 0).

    Returns:
        (B or 1, 1, T or 1, S) bool tensor, or None where everything may be seen.

    Example:
        >>> import numpy as np
        >>> mask = np.array([[True, True, False]])
        >>> np.asarray(visible(mask, 2, 3, causal=True)).tolist()
        [[[[True, False, False], [True, True, False]]]]
    """
    valid = None
    if mask is not None:
        # An axis put in by a slice does not convert where batch and steps are open.
        valid = ops.expand_dims(ops.cast(mask, "bool"), 1 if len(mask.shape) == 3 else (1, 2))
    if causal or window is not None:
        # A comparison of ranges converts to LiteRT for every length; a band matrix does not.
        query = ops.arange(query_steps, dtype="int32")[:, None] + starts[0]
        key = ops.arange(memory_steps, dtype="int32")[None, :] + starts[1]
        near = query >= key if causal else None
        if window is not None:
            before = query <= key + window
            after = near if causal else query >= key - window
            near = ops.logical_and(before, after)
        near = ops.expand_dims(near, (0, 1))
        valid = near if valid is None else ops.logical_and(valid, near)
    return valid


def masked_softmax(scores: Any, valid: Any = None, *, training: bool | None = None) -> Any:
    """Softmax over the last axis in float32; a row without a valid entry gives zeros.

    Args:
        scores: (..., S) tensor.
        valid: Bool tensor that broadcasts to `scores`, or None for all valid.
        training: Whether the form is taken that is faster, as it is in the steps of a search; the
            other one quantises better.

    Returns:
        float32 tensor shaped like `scores`; each row sums to 1, or to 0 where nothing is valid.

    Example:
        >>> import numpy as np
        >>> valid = np.array([[True, True, False], [False, False, False]])
        >>> np.asarray(masked_softmax(np.zeros((2, 3), "float32"), valid)).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    scores = ops.cast(scores, "float32")
    if valid is None:
        return _softmax(scores)
    if training or update() in ("in_place", "slice"):
        # A choice between two tensors that broadcast costs TensorFlow as much as a product of the
        # heads: the choice is made on the mask, which is small, before and after the softmax.
        highest = ops.where(valid, np.float32(np.inf), np.float32(-1e9))
        return _trained_softmax(ops.convert_to_tensor(scores), highest, ops.cast(valid, "float32"))
    # The row's lowest score stands in for "minus infinity": a huge negative number would stretch
    # the range of this tensor and leave nothing of the real scores in an int8 model. It takes some
    # weight, so the rest is scaled back to 1 afterwards.
    lowest = ops.stop_gradient(ops.min(scores, axis=-1, keepdims=True))
    weights = _softmax(ops.where(valid, scores, lowest))
    weights = ops.where(valid, weights, ops.zeros_like(weights))
    total = ops.sum(weights, axis=-1, keepdims=True)
    return weights / ops.where(total > 0, total, ops.ones_like(total))


@ops.custom_gradient
def _trained_softmax(scores: Any, highest: Any, valid: Any) -> Any:
    weights = _softmax(ops.minimum(scores, highest)) * valid

    def gradient(*args: Any, upstream: Any = None) -> Any:
        above = args[0] if upstream is None else upstream
        above = above * weights
        slope = above - weights * ops.sum(above, axis=-1, keepdims=True)
        return slope, ops.zeros_like(highest), ops.zeros_like(valid)

    return weights, gradient


def _softmax(scores: Any) -> Any:
    # Keras warns of a softmax over one entry, which is right for a sequence of one step.
    return ops.exp(scores - scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)


def head_scores(query: Any, key: Any) -> Any:
    """Multiplies queries with keys, head by head; neighbouring heads may share one of the keys.

    Args:
        query: (B, H, T, head width).
        key: (B, G, S, head width), H a multiple of G: query head h goes with key head h // (H / G).

    Returns:
        (B, H, T, S).

    Example:
        >>> import numpy as np
        >>> query = np.array([[[[1.0]], [[2.0]]]], "float32")  # two heads
        >>> key = np.array([[[[3.0], [4.0]]]], "float32")  # one head, two steps
        >>> np.asarray(head_scores(query, key)).tolist()
        [[[[3.0, 4.0]], [[6.0, 8.0]]]]
    """
    key = ops.transpose(key, (0, 1, 3, 2))
    heads, groups = query.shape[1], key.shape[1]
    if heads == groups:
        return ops.matmul(query, key)
    # The queries of a group stand below each other, so that no key is copied.
    steps = ops.shape(query)[2]
    query = ops.reshape(query, (-1, groups, heads // groups * steps, query.shape[3]))
    return ops.reshape(ops.matmul(query, key), (-1, heads, steps, ops.shape(key)[3]))


def head_values(weights: Any, value: Any) -> Any:
    """Averages values by weights, head by head; neighbouring heads may share one of the values.

    Args:
        weights: (B, H, T, S).
        value: (B, G, S, head width), H a multiple of G.

    Returns:
        (B, H, T, head width).

    Example:
        >>> import numpy as np
        >>> weights = np.array([[[[1.0, 0.0]], [[0.5, 0.5]]]], "float32")  # two heads
        >>> value = np.array([[[[3.0], [4.0]]]], "float32")  # one head, two steps
        >>> np.asarray(head_values(weights, value)).tolist()
        [[[[3.0]], [[3.5]]]]
    """
    heads, groups = weights.shape[1], value.shape[1]
    if heads == groups:
        return ops.matmul(weights, value)
    steps = ops.shape(weights)[2]
    weights = ops.reshape(weights, (-1, groups, heads // groups * steps, ops.shape(weights)[3]))
    return ops.reshape(ops.matmul(weights, value), (-1, heads, steps, value.shape[3]))
