"""Exact attention tile by tile in TensorFlow, with the gradient written out by hand.

The scores of a block of queries and a block of keys are a tile. A row of tiles is read from left to
right; its highest score and its sum so far are kept, so that no row of weights ever exists as a
whole. Of the forward pass stay the output and the logarithm of each row's sum; the backward pass
computes the tiles again. So memory is linear in the length, both ways.

Tensors are (B, H, T, head width) here; H heads of queries share G heads of keys and values, and
the queries of one group stand below each other in a tile, (B, G, H / G * block, block).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import ops

from keras_seq.layers.dropout import drawn_scale

# Added to a score that is hidden, and the highest score of a row before its first key. What is
# hidden is so much lower that its weight is 0 even beside the latter.
_HIDDEN, _LOWEST = -1e30, -1e29
# A tile of all heads and rows is to stay within the caches and a few megabytes.
_BLOCKS = ((16, 512), (64, 256))
_SMALLEST = 128


def tiled_attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    mask: Any = None,
    before: int | None = None,
    after: int | None = None,
    bias: Any = None,
    dropout: float = 0.0,
    seed: Any = None,
    block: int | None = None,
) -> Any:
    """Averages values by the softmax of scaled scores, without ever holding all weights.

    Tiles that are wholly hidden by `before` and `after` are not computed.

    Args:
        q: (B, H, T, D).
        k: (B, G, S, D), H a multiple of G.
        v: (B, G, S, Dv).
        mask: (B, S) bool, True at the keys that may be seen; None: all.
        before: How many steps before its own a query sees; None: all.
        after: How many steps after its own a query sees; None: all.
        bias: (2 M + 1, H), added for each distance from M steps before the query to M after it
            and what is beyond them; or (H,), taken off for each step of distance; None: nothing.
        dropout: On the weights, 0 to below 1. Default 0.
        seed: (2,) int tensor, of the weights that are dropped; not for no dropout.
        block: Most steps of the queries and of the keys in a tile; None: 512, and less where rows
            and heads are many.

    Returns:
        (B, H, T, Dv), of the type of `q`. A query without any key to see gets zeros.

    Example:
        >>> x = tf.constant([[[[1.0], [2.0], [9.0]]]])
        >>> tiled_attention(tf.zeros_like(x), x, x, after=0, block=2)[0, 0, :, 0].numpy()
        array([1. , 1.5, 4. ], dtype=float32)

    Reference:
        Rabe and Staats 2021, Self-attention Does Not Need O(n^2) Memory; Dao et al. 2022,
        FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness.
    """
    tiles = _Tiles(q, k, v, mask, before, after, bias, dropout, seed, block)

    @tf.custom_gradient
    def run(*given: Any) -> Any:
        output, logs = tiles.forward(*given)

        def gradient(upstream: Any) -> tuple[Any, ...]:
            return tiles.backward(upstream, output, logs, *given)

        return output, gradient

    # The query is scaled before the product, so that float16 does not overflow in it.
    given = [
        _padded(q * tf.constant(q.shape[-1] ** -0.5, q.dtype), tiles.query_padding),
        _padded(k, tiles.key_padding),
        _padded(v, tiles.key_padding),
    ]
    if bias is not None:
        given.append(tf.cast(bias, tiles.compute))
    output = run(*given)[:, :, : tiles.query_steps]
    return tf.ensure_shape(output, [q.shape[0], q.shape[1], q.shape[2], v.shape[3]])


class _Tiles:
    """The sizes of a call, numbers where they are known, and what is done for one tile."""

    def __init__(
        self,
        q: Any,
        k: Any,
        v: Any,
        mask: Any,
        before: int | None,
        after: int | None,
        bias: Any,
        dropout: float,
        seed: Any,
        block: int | None,
    ) -> None:
        self.compute = tf.float64 if q.dtype == tf.float64 else tf.float32
        self.batch, self.heads, self.query_steps, self.width = ops.shape(q)
        self.groups, self.key_steps, self.value_width = k.shape[1], ops.shape(k)[2], v.shape[3]
        self.shared = self.heads // self.groups
        if block is None:
            block = _block(self.batch * self.heads)
        self.query_count, self.query_block = _split(self.query_steps, block)
        self.key_count, self.key_block = _split(self.key_steps, block)
        self.query_padding = self.query_count * self.query_block - self.query_steps
        self.key_padding = self.key_count * self.key_block - self.key_steps
        self.before, self.after = before, after
        self.hidden = None
        if mask is not None:
            seen = _padded(tf.cast(mask, tf.bool)[:, None, None], self.key_padding, axis=3)
            zero = tf.zeros((), self.compute)
            self.hidden = tf.where(seen, zero, tf.constant(_HIDDEN, self.compute))
        # Padded keys are hidden by their place where there is no mask to do it.
        self.short = mask is None and not _is_zero(self.key_padding)
        self.seed = None if seed is None else tf.cast(seed, tf.int32)
        self.dropout, self.bias_rank = dropout, None if bias is None else len(bias.shape)
        # How many steps a column of a tile is later than a row, where both begin together.
        row = tf.tile(tf.range(self.query_block), [self.shared])
        self.later = tf.range(self.key_block)[None, :] - row[:, None]

    # ------------------------------------------------------------------------ parts of tensors

    def _queries(self, x: Any, i: Any) -> Any:
        """Of all queries (B, H, T, W) those of block i, (B, G, H / G * block, W)."""
        width = x.shape[-1]
        if self.shared == 1:
            size = [self.batch, self.heads, self.query_block, width]
            return tf.slice(x, [0, 0, i * self.query_block, 0], size)
        x = tf.reshape(x, [self.batch, self.groups, self.shared, -1, width])
        size = [self.batch, self.groups, self.shared, self.query_block, width]
        x = tf.slice(x, [0, 0, 0, i * self.query_block, 0], size)
        return tf.reshape(x, [self.batch, self.groups, self.shared * self.query_block, width])

    def _keys(self, x: Any, j: Any) -> Any:
        """Of all keys or values (B, G, S, W) those of block j."""
        size = [self.batch, self.groups, self.key_block, x.shape[-1]]
        return tf.slice(x, [0, 0, j * self.key_block, 0], size)

    def _all_queries(self, blocks: Any) -> Any:
        """(blocks, B, G, H / G * block, W) -> (B, H, T, W)."""
        width = blocks.shape[-1]
        sizes = [self.query_count, self.batch, self.groups, self.shared, self.query_block, width]
        x = tf.transpose(tf.reshape(blocks, sizes), [1, 2, 3, 0, 4, 5])
        return tf.reshape(x, [self.batch, self.heads, self.query_count * self.query_block, width])

    def _all_keys(self, blocks: Any) -> Any:
        """(blocks, B, G, block, W) -> (B, G, S, W)."""
        x = tf.transpose(blocks, [1, 2, 0, 3, 4])
        steps = self.key_count * self.key_block
        return tf.reshape(x, [self.batch, self.groups, steps, blocks.shape[-1]])

    # ------------------------------------------------------------------- which tiles are needed

    def _key_blocks(self, i: Any) -> tuple[Any, Any]:
        """The blocks of keys that queries of block i see something of: first, and one past last."""
        first, last = 0, self.key_count
        if self.before is not None:
            first = _maximum(i * self.query_block - self.before, 0) // self.key_block
            first = _minimum(first, last)
        if self.after is not None:
            farthest = (i + 1) * self.query_block - 1 + self.after
            last = _minimum(last, farthest // self.key_block + 1)
        return first, last

    def _query_blocks(self, j: Any) -> tuple[Any, Any]:
        """The blocks of queries that see something of the keys of block j, likewise."""
        first, last = 0, self.query_count
        if self.after is not None:
            first = _maximum(j * self.key_block - self.after, 0) // self.query_block
            first = _minimum(first, last)
        if self.before is not None:
            farthest = (j + 1) * self.key_block - 1 + self.before
            last = _minimum(last, farthest // self.query_block + 1)
        return first, last

    def _hide(self, scores: Any, i: Any, j: Any) -> Any:
        """Hides what is too far from a query, or is padding; most tiles have neither."""
        start = j * self.key_block - i * self.query_block
        at_edge: Any = False
        if self.before is not None:
            at_edge = _either(at_edge, start - self.query_block + 1 < -self.before)
        if self.after is not None:
            at_edge = _either(at_edge, start + self.key_block - 1 > self.after)
        if self.short:
            at_edge = _either(at_edge, (j + 1) * self.key_block > self.key_steps)
        if at_edge is False:
            return scores

        def hidden() -> Any:
            distance = start + self.later
            seen = tf.ones_like(distance, tf.bool)
            if self.before is not None:
                seen &= distance >= -self.before
            if self.after is not None:
                seen &= distance <= self.after
            if self.short:
                place = j * self.key_block + tf.range(self.key_block)
                seen &= (place < self.key_steps)[None, :]
            zero = tf.zeros((), self.compute)
            return scores + tf.where(seen, zero, tf.constant(_HIDDEN, self.compute))

        return hidden() if at_edge is True else tf.cond(at_edge, hidden, lambda: scores)

    # ------------------------------------------------------------------------------------- bias

    def _distances(self, i: Any, j: Any) -> Any:
        """All distances within a tile, from the last row's of its first column on."""
        start = j * self.key_block - i * self.query_block - self.query_block + 1
        return start + tf.range(self.query_block + self.key_block - 1)

    def _bias(self, bias: Any, i: Any, j: Any) -> Any:
        """(G, H / G * block, block), the same number along each diagonal."""
        distances = self._distances(i, j)
        if self.bias_rank == 1:
            numbers = -bias[:, None] * tf.cast(tf.abs(distances), self.compute)[None, :]
        else:
            farthest = bias.shape[0] // 2
            near = tf.clip_by_value(distances, -farthest, farthest) + farthest
            numbers = tf.transpose(tf.gather(bias, near))  # (H, distances)
        # Written row below row into lines that are one longer, each row moves on by one.
        rows, columns = self.query_block, self.key_block
        lines = tf.tile(tf.pad(numbers, [[0, 0], [0, 1]]), [1, rows])
        lines = tf.slice(lines, [0, rows - 1], [self.heads, rows * (rows + columns - 1)])
        square = tf.reshape(lines, [self.heads, rows, rows + columns - 1])[:, :, :columns]
        return tf.reshape(square, [self.groups, self.shared * rows, columns])

    def _add_bias_slope(self, total: Any, slope: Any, bias: Any, i: Any, j: Any) -> Any:
        """Adds what a tile's scores want of the bias: the sums along its diagonals."""
        rows, columns = self.query_block, self.key_block
        square = tf.reshape(tf.reduce_sum(slope, axis=0), [self.heads, rows, columns])
        lines = tf.reshape(tf.pad(square, [[0, 0], [0, 0], [0, rows - 1]]), [self.heads, -1])
        lines = tf.pad(lines, [[0, 0], [rows - 1, 1]])
        lines = tf.reshape(lines, [self.heads, rows, rows + columns])
        sums = tf.reduce_sum(lines, axis=1)[:, :-1]  # (H, distances)
        distances = self._distances(i, j)
        if self.bias_rank == 1:
            far = tf.cast(tf.abs(distances), self.compute)
            return total - tf.reduce_sum(sums * far[None, :], axis=1)
        farthest = bias.shape[0] // 2
        near = tf.clip_by_value(distances, -farthest, farthest) + farthest
        return tf.tensor_scatter_nd_add(total, near[:, None], tf.transpose(sums))

    # ------------------------------------------------------------------------------------ passes

    def _scores(self, q_i: Any, k_j: Any, bias: Any, i: Any, j: Any) -> Any:
        scores = tf.cast(tf.matmul(q_i, k_j, transpose_b=True), self.compute)
        if bias is not None:
            scores += self._bias(bias, i, j)
        if self.hidden is not None:
            size = [self.batch, 1, 1, self.key_block]
            scores += tf.slice(self.hidden, [0, 0, 0, j * self.key_block], size)
        return self._hide(scores, i, j)

    def _dropped(self, i: Any, j: Any) -> Any:
        """What the weights of a tile are multiplied with; the same whenever it is computed."""
        seed = tf.random.experimental.stateless_fold_in(self.seed, i * self.key_count + j)
        shape = [self.batch, self.groups, self.shared * self.query_block, self.key_block]
        return drawn_scale(self.dropout, shape, seed, self.compute)

    def forward(self, q: Any, k: Any, v: Any, bias: Any = None) -> tuple[Any, Any]:
        """Returns the output and the logarithm of each row's sum, (B, H, T, 1), both padded."""

        def row(i: Any, found: list[Any]) -> list[Any]:
            q_i = self._queries(q, i)

            def tile(j: Any, states: list[Any]) -> list[Any]:
                highest, total, mixed = states
                scores = self._scores(q_i, self._keys(k, j), bias, i, j)
                above = tf.maximum(highest, tf.reduce_max(scores, axis=-1, keepdims=True))
                shrink, weights = tf.exp(highest - above), tf.exp(scores - above)
                total = total * shrink + tf.reduce_sum(weights, axis=-1, keepdims=True)
                if self.dropout:
                    weights *= self._dropped(i, j)
                new = tf.matmul(tf.cast(weights, v.dtype), self._keys(v, j))
                return [above, total, mixed * shrink + tf.cast(new, self.compute)]

            shape = [self.batch, self.groups, self.shared * self.query_block]
            start = [
                tf.fill([*shape, 1], tf.constant(_LOWEST, self.compute)),
                tf.zeros([*shape, 1], self.compute),
                tf.zeros([*shape, self.value_width], self.compute),
            ]
            highest, total, mixed = _loop(*self._key_blocks(i), tile, start)
            seen = highest > _LOWEST
            total = tf.where(seen, total, tf.ones_like(total))
            mixed = tf.where(seen, mixed / total, tf.zeros_like(mixed))
            # Where nothing is seen the backward pass is to find weights of 0.
            log = tf.where(seen, highest + tf.math.log(total), -tf.constant(_HIDDEN, self.compute))
            return [found[0].write(i, tf.cast(mixed, q.dtype)), found[1].write(i, log)]

        arrays = [_array(q.dtype, self.query_count), _array(self.compute, self.query_count)]
        output, logs = _loop(0, self.query_count, row, arrays)
        rows = _known([self.batch, self.groups, self.shared * self.query_block])
        return (
            self._all_queries(_stacked(output, [*rows, self.value_width])),
            self._all_queries(_stacked(logs, [*rows, 1])),
        )

    def backward(
        self, upstream: Any, output: Any, logs: Any, q: Any, k: Any, v: Any, bias: Any = None
    ) -> tuple[Any, ...]:
        """Returns the gradients by queries, keys, values, and by the bias if there is one."""
        product = tf.cast(upstream, self.compute) * tf.cast(output, self.compute)
        shares = tf.reduce_sum(product, axis=-1, keepdims=True)

        def column(j: Any, found: list[Any]) -> list[Any]:
            k_j, v_j = self._keys(k, j), self._keys(v, j)

            def tile(i: Any, states: list[Any]) -> list[Any]:
                d_q, d_k, d_v, *d_bias = states
                q_i, above = self._queries(q, i), self._queries(upstream, i)
                scores = self._scores(q_i, k_j, bias, i, j)
                weights = tf.exp(scores - self._queries(logs, i))
                slope = tf.cast(tf.matmul(above, v_j, transpose_b=True), self.compute)
                kept = weights
                if self.dropout:
                    scale = self._dropped(i, j)
                    kept, slope = weights * scale, slope * scale
                new = tf.matmul(tf.cast(kept, v.dtype), above, transpose_a=True)
                d_v += tf.cast(new, self.compute)
                slope = weights * (slope - self._queries(shares, i))
                if d_bias:
                    d_bias = [self._add_bias_slope(d_bias[0], slope, bias, i, j)]
                slope = tf.cast(slope, q.dtype)
                d_k += tf.cast(tf.matmul(slope, q_i, transpose_a=True), self.compute)
                new = tf.cast(tf.matmul(slope, k_j), self.compute)
                return [tf.tensor_scatter_nd_add(d_q, [[i]], new[None]), d_k, d_v, *d_bias]

            d_q, d_k, d_v, *d_bias = found
            shape = [self.batch, self.groups, self.key_block]
            start = [
                d_q,
                tf.zeros([*shape, self.width], self.compute),
                tf.zeros([*shape, self.value_width], self.compute),
                *d_bias,
            ]
            d_q, new_k, new_v, *d_bias = _loop(*self._query_blocks(j), tile, start)
            new_k, new_v = tf.cast(new_k, k.dtype), tf.cast(new_v, v.dtype)
            return [d_q, d_k.write(j, new_k), d_v.write(j, new_v), *d_bias]

        rows = [self.query_count, self.batch, self.groups, self.shared * self.query_block]
        start = [
            tf.zeros([*rows, self.width], self.compute),
            _array(k.dtype, self.key_count),
            _array(v.dtype, self.key_count),
            *([] if bias is None else [tf.zeros_like(bias)]),
        ]
        d_q, d_k, d_v, *d_bias = _loop(0, self.key_count, column, start)
        block = _known([self.batch, self.groups, self.key_block])
        return (
            tf.cast(self._all_queries(d_q), q.dtype),
            self._all_keys(_stacked(d_k, [*block, self.width])),
            self._all_keys(_stacked(d_v, [*block, self.value_width])),
            *d_bias,
        )


def _loop(first: Any, last: Any, body: Callable[..., list[Any]], states: list[Any]) -> list[Any]:
    """Runs `body(i, states)` for each i from first to before last; one alone without a loop."""
    if isinstance(first, int) and isinstance(last, int) and last - first == 1:
        return body(first, states)

    def step(i: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        after = body(i, states)
        for old, new in zip(states, after, strict=True):
            if not isinstance(new, tf.TensorArray):
                new.set_shape(old.shape)
        return i + 1, after

    start = tf.convert_to_tensor(first, tf.int32)
    # One at a time: memory is what this is about.
    _, states = tf.while_loop(lambda i, _: i < last, step, (start, states), parallel_iterations=1)
    return states


def _array(dtype: Any, count: Any) -> Any:
    return tf.TensorArray(dtype, count, infer_shape=False)


def _stacked(array: Any, shape: list[int | None]) -> Any:
    return tf.ensure_shape(array.stack(), [None, *shape])


def _known(sizes: list[Any]) -> list[int | None]:
    return [size if isinstance(size, int) else None for size in sizes]


def _split(steps: Any, block: Any) -> tuple[Any, Any]:
    """Blocks of one size: how many, and of how many steps; they go little beyond the end."""
    count = _maximum(-(-steps // block), 1)
    return count, -(-steps // count)


def _block(rows: Any) -> Any:
    """Steps of a tile's sides, for so many rows of a batch times heads."""
    if isinstance(rows, int):
        return next((block for most, block in _BLOCKS if rows <= most), _SMALLEST)
    found = tf.constant(_SMALLEST)
    for most, block in reversed(_BLOCKS):
        found = tf.where(rows <= most, block, found)
    return found


def _padded(x: Any, padding: Any, axis: int = 2) -> Any:
    """Zeros behind the steps."""
    if _is_zero(padding):
        return x
    return tf.pad(x, [[0, padding if a == axis else 0] for a in range(len(x.shape))])


def _is_zero(x: Any) -> bool:
    return isinstance(x, int) and x == 0


def _maximum(a: Any, b: Any) -> Any:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else tf.maximum(a, b)


def _minimum(a: Any, b: Any) -> Any:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tf.minimum(a, b)


def _either(a: Any, b: Any) -> Any:
    if a is True or b is True:
        return True
    return b if a is False else a if b is False else tf.logical_or(a, b)
