"""Attention over long sequences by tiles: the same result in memory that grows with the length."""

from __future__ import annotations

from typing import Any

from keras_seq.layers.long_checks import check_long, seed_pair


def blockwise_attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    mask: Any = None,
    causal: bool = False,
    bias: Any = None,
    dropout: float = 0.0,
    seed: Any = None,
    block: int | None = None,
) -> Any:
    """Attends exactly, without ever holding the scores of more than a tile; TensorFlow only.

    The memory of forward and backward pass grows with the length, not with its square; the backward
    pass computes the scores again. Causal, the tiles of the future are left out. The softmax is
    computed in float32 whatever comes in.

    Args:
        q: Queries, (B, H, T, D); T may be unknown until run time.
        k: Keys, (B, G, S, D), H a multiple of G: neighbouring heads share one of the keys.
        v: Values, (B, G, S, Dv).
        mask: (B, S) bool, True at real keys; None: all.
        causal: Whether query t sees only keys up to t. Default False.
        bias: What is added to the scores for the distance of two steps: a table (2 M + 1, H), from
            M steps before the query to M after it and what is beyond them, or slopes (H,), taken
            off for each step (`alibi_slopes`); it gets a gradient. None: nothing.
        dropout: On the weights, 0 to below 1. Default 0.
        seed: Of the dropped weights: a number, an int tensor (2,), or a
            `keras.random.SeedGenerator`; the same drop the same.
        block: Most steps of a tile's sides; None: 512, and less where rows and heads are many.

    Returns:
        (B, H, T, Dv), of the type of `q`. A query without a key to see gets zeros.

    Raises:
        ValueError: If the heads cannot be shared, the mask or the bias has another shape, or there
            is dropout without a seed.

    Example:
        >>> import numpy as np
        >>> x = np.array([[[[1.0], [2.0], [9.0]]]], "float32")  # one head, three steps
        >>> mask = np.array([[True, True, False]])
        >>> np.asarray(blockwise_attention(np.zeros_like(x), x, x, mask=mask, block=2))[0, 0, :, 0]
        array([1.5, 1.5, 1.5], dtype=float32)

    Reference:
        Rabe and Staats 2021, Self-attention Does Not Need O(n^2) Memory; Dao et al. 2022,
        FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness.
    """
    import tensorflow as tf

    from keras_seq.layers.attention_tiles import tiled_attention

    q, k, v = (tf.convert_to_tensor(x) for x in (q, k, v))
    check_long(q, k, v, mask=mask, bias=bias, dropout=dropout, seed=seed, block=block)
    return tiled_attention(
        q,
        k,
        v,
        mask=mask,
        after=0 if causal else None,
        bias=bias,
        dropout=dropout,
        seed=seed_pair(seed) if dropout else None,
        block=block,
    )
