"""Attention to the neighbouring steps only: its cost grows with the length, not with its square."""

from __future__ import annotations

from typing import Any

from keras_seq.layers.long_checks import check_long, seed_pair

# Smaller tiles would leave out more of what is hidden, and cost more calls than that saves.
_SMALLEST, _LARGEST = 64, 512


def sliding_window_attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    window: int,
    mask: Any = None,
    causal: bool = False,
    bias: Any = None,
    dropout: float = 0.0,
    seed: Any = None,
    block: int | None = None,
) -> Any:
    """Attends from each step to those at most `window` steps away; TensorFlow only.

    A block of queries is compared with the blocks of keys beside it alone; else it is
    `blockwise_attention`.

    Args:
        q: Queries, (B, H, T, D); T may be unknown until run time.
        k: Keys, (B, G, S, D), H a multiple of G.
        v: Values, (B, G, S, Dv).
        window: How many steps before its own and after it a query sees; causal: before it. At
            least 0.
        mask: (B, S) bool, True at real keys; None: all.
        causal: Whether query t sees only keys up to t. Default False.
        bias: See `blockwise_attention`.
        dropout: On the weights, 0 to below 1. Default 0.
        seed: See `blockwise_attention`.
        block: Most steps of a tile's sides; None: as the window, from 64 to 512.

    Returns:
        (B, H, T, Dv), of the type of `q`. A query without a key to see gets zeros.

    Raises:
        ValueError: If the window is negative, or as `blockwise_attention`.

    Example:
        >>> import numpy as np
        >>> x = np.array([[[[1.0], [3.0], [8.0], [4.0]]]], "float32")  # one head, four steps
        >>> np.asarray(sliding_window_attention(np.zeros_like(x), x, x, window=1))[0, 0, :, 0]
        array([2., 4., 5., 6.], dtype=float32)

    Reference:
        Beltagy, Peters and Cohan 2020, Longformer: The Long-Document Transformer.
    """
    import tensorflow as tf

    from keras_seq.layers.attention_tiles import tiled_attention

    q, k, v = (tf.convert_to_tensor(x) for x in (q, k, v))
    check_long(
        q, k, v, mask=mask, bias=bias, dropout=dropout, seed=seed, block=block, window=window
    )
    return tiled_attention(
        q,
        k,
        v,
        mask=mask,
        before=window,
        after=0 if causal else window,
        bias=bias,
        dropout=dropout,
        seed=seed_pair(seed) if dropout else None,
        block=block or min(max(window, _SMALLEST), _LARGEST),
    )
