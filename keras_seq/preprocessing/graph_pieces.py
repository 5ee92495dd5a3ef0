"""Chunks into pieces, in TensorFlow: word pieces, byte pairs, unigrams.

Each is a `tf.Module` that maps distinct chunks, strings `(U,)`, to ragged ids `(U, None)` int64:
whole numbers throughout, so that the ids are exactly those of `device_tokenizer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.preprocessing.device_tokenizer import SPECIAL, UNKNOWN, byte_letters
from keras_seq.preprocessing.graph_chunks import place_in_run

_CODE_POINTS = 0x110000
_NONE = -1
_FAR = 2**62
_LOW = np.int64(-(10**12))


def lookup_table(keys: list[Any], first: int | list[int], default: int) -> Any:
    """A table from strings or whole numbers to whole numbers; it may be empty.

    Args:
        keys: Distinct strings, or distinct whole numbers.
        first: The value of the first key, the next has one more; or all values.
        default: The value of any other key.

    Returns:
        A `tf.lookup.StaticHashTable` with int64 values.

    Example:
        >>> lookup_table(["a", "b"], 5, 1).lookup(tf.constant(["b", "c"])).numpy()
        array([6, 1])
    """
    values = list(range(first, first + len(keys))) if isinstance(first, int) else first
    if keys and isinstance(keys[0], str):
        names = tf.constant([key.encode("utf-8") for key in keys], tf.string)
    else:
        names = tf.constant(keys, tf.int64)
    source = tf.lookup.KeyValueTensorInitializer(names, tf.constant(values, tf.int64))
    return tf.lookup.StaticHashTable(source, default)


class _Trie(tf.Module):
    """Which tokens begin where: (node, code point) -> node, and the token that ends in a node.

    Args:
        tokens: (text, id) of each, in one dictionary for each root.
    """

    def __init__(self, *roots: dict[str, int]) -> None:
        super().__init__()
        edges: dict[int, int] = {}
        ends = [_NONE] * len(roots)
        self.longest = 1
        for root, tokens in enumerate(roots):
            for text, token in tokens.items():
                node = root
                for letter in text:
                    key = node * _CODE_POINTS + ord(letter)
                    if key not in edges:
                        edges[key] = len(ends)
                        ends.append(_NONE)
                    node = edges[key]
                ends[node] = token
                self.longest = max(self.longest, len(text))
        self._edges = lookup_table(list(edges), list(edges.values()), _NONE)
        self._ends = np.array(ends, np.int64)

    def matches(self, points: Any, ends: Any, node: Any) -> Iterator[tuple[int, Any, Any]]:
        """Walk from every place at once: (length, places where a token ends, the tokens).

        Args:
            points: Code points `(N,)` int64 of all chunks.
            ends: Where the chunk of each ends `(N,)`.
            node: The root for each place `(N,)`.
        """
        place = tf.range(tf.size(points, tf.int64))
        for length in range(1, self.longest + 1):
            inside = place + length <= tf.gather(ends, place)
            place, node = tf.boolean_mask(place, inside), tf.boolean_mask(node, inside)
            node = self._edges.lookup(node * _CODE_POINTS + tf.gather(points, place + length - 1))
            alive = node != _NONE
            place, node = tf.boolean_mask(place, alive), tf.boolean_mask(node, alive)
            token = tf.gather(self._ends, node)
            found = token != _NONE
            yield length, tf.boolean_mask(place, found), tf.boolean_mask(token, found)


def _flat(chunks: Any) -> tuple[Any, Any, Any, Any]:
    """Code points (N,), the chunk of each (N,), where chunks start (U,) and end (U,); int64."""
    ragged = tf.strings.unicode_decode(chunks, "UTF-8")
    starts, ends = ragged.row_splits[:-1], ragged.row_splits[1:]
    return tf.cast(ragged.values, tf.int64), ragged.value_rowids(), starts, ends


class WordPieces(tf.Module):
    """The longest piece that fits, again and again; a word that cannot be cut is unknown.

    Args:
        vocabulary: All tokens by id, the special ones first.

    Example:
        >>> from keras_seq.preprocessing.device_tokenizer import SPECIAL
        >>> WordPieces([*SPECIAL, "un", "##it", "##i"])(["unit", "units", "un"]).to_list()
        [[5, 6], [1], [5]]
    """

    def __init__(self, vocabulary: list[str]) -> None:
        super().__init__()
        real = list(enumerate(vocabulary))[len(SPECIAL) :]
        self._trie = _Trie(
            {text: token for token, text in real},
            {text[2:]: token for token, text in real if text.startswith("##") and len(text) > 2},
        )

    def __call__(self, chunks: Any) -> Any:
        """Cut distinct words."""
        points, chunk, starts, ends = _flat(chunks)
        count = tf.size(points, tf.int64)
        place = tf.range(count)
        inner = tf.cast(place > tf.gather(starts, chunk), tf.int64)
        sizes, tokens = tf.zeros_like(points), tf.fill([count], np.int64(UNKNOWN))
        for size, where, found in self._trie.matches(points, tf.gather(ends, chunk), inner):
            where = where[:, None]
            sizes = tf.tensor_scatter_nd_update(sizes, where, tf.zeros_like(found) + size)
            tokens = tf.tensor_scatter_nd_update(tokens, where, found)

        sizes = tf.concat([sizes, [0]], 0)  # a slot for the end of the last word

        def jump(_: Any, at: Any, visited: Any) -> tuple[Any, Any, Any]:
            visited = tf.tensor_scatter_nd_update(visited, at[:, None], tf.ones_like(at))
            # A word at its end, or where nothing fits, stays where it is.
            step = tf.where(at < ends, tf.gather(sizes, at), 0)
            return tf.reduce_any(step > 0), at + step, visited

        _, at, visited = tf.while_loop(
            lambda moved, at, visited: moved, jump, (True, starts, tf.zeros_like(sizes))
        )
        # The end of a word is the start of the next, which is visited anyway.
        stuck = tf.gather(at < ends, chunk)
        kept = tf.where(stuck, inner == 0, visited[:-1] > 0)
        tokens = tf.where(stuck, np.int64(UNKNOWN), tokens)
        return _ragged(tokens, chunk, kept, chunks)


class BytePairs(tf.Module):
    """Join the pair that training joined first, wherever it stands, until none is left.

    Args:
        vocabulary: All tokens by id, the special ones first.
        merges: "left right" in the order of training.

    Example:
        >>> from keras_seq.preprocessing.device_tokenizer import SPECIAL
        >>> BytePairs([*SPECIAL, *byte_letters(), "aa"], ["a a"])(["aaa"]).to_list()
        [[261, 102]]
    """

    def __init__(self, vocabulary: list[str], merges: list[str]) -> None:
        super().__init__()
        ids = {token: i for i, token in enumerate(vocabulary) if i >= len(SPECIAL)}
        self._size = len(vocabulary)
        self._alphabet = np.array([ids[letter] for letter in byte_letters()], np.int64)
        pairs = [merge.split(" ") for merge in merges]
        keys = [ids[left] * self._size + ids[right] for left, right in pairs]
        self._ranks = lookup_table(keys, 0, _FAR)
        joined = [ids[left + right] for left, right in pairs]
        self._joined = np.array([*joined, UNKNOWN], np.int64)

    def __call__(self, chunks: Any) -> Any:
        """Cut distinct chunks."""
        flat = tf.io.decode_raw(tf.strings.reduce_join(chunks), tf.uint8)
        symbols = tf.gather(self._alphabet, tf.cast(flat, tf.int32))
        count = tf.size(chunks, tf.int64)
        chunk = tf.repeat(tf.range(count), tf.strings.length(chunks))

        def join(_: Any, symbols: Any, chunk: Any) -> tuple[Any, Any, Any]:
            left, right = symbols[:-1], symbols[1:]
            rank = self._ranks.lookup(left * self._size + right)
            rank = tf.where(chunk[:-1] == chunk[1:], rank, np.int64(_FAR))
            first = tf.math.unsorted_segment_min(rank, chunk[:-1], count)
            wanted = (rank < _FAR) & (rank == tf.gather(first, chunk[:-1]))
            # Of "a a a" the first two are joined, not the last two: every other one of a run.
            place = place_in_run(wanted, chunk[:-1])
            wanted &= place % 2 == 0
            new = tf.gather(self._joined, tf.where(wanted, rank, np.int64(len(self._joined) - 1)))
            false = tf.zeros_like(chunk[:1], tf.bool)
            symbols = tf.where(
                tf.concat([wanted, false], 0), tf.concat([new, symbols[-1:]], 0), symbols
            )
            kept = ~tf.concat([false, wanted], 0)
            more = tf.reduce_any(wanted)
            return more, tf.boolean_mask(symbols, kept), tf.boolean_mask(chunk, kept)

        flexible = tf.TensorShape([None])
        _, symbols, chunk = tf.while_loop(
            lambda more, symbols, chunk: more,
            join,
            (tf.size(symbols) > 1, symbols, chunk),
            shape_invariants=(tf.TensorShape([]), flexible, flexible),
        )
        return _ragged(symbols, chunk, tf.ones_like(chunk, tf.bool), chunks)


class Unigrams(tf.Module):
    """The cut with the highest sum of scores (Viterbi); of equals, the shorter last piece.

    Args:
        vocabulary: All tokens by id, the special ones first.
        scores: Whole numbers, one for each token; that of "unknown" is below all others.

    Example:
        >>> from keras_seq.preprocessing.device_tokenizer import SPECIAL
        >>> scores = [-99, -99, -99, -99, -99, -4, -4, -7]
        >>> Unigrams([*SPECIAL, "a", "b", "ab"], scores)(["abc", "bab"]).to_list()
        [[7, 1], [6, 7]]
    """

    def __init__(self, vocabulary: list[str], scores: list[int]) -> None:
        super().__init__()
        self._trie = _Trie({t: i for i, t in enumerate(vocabulary) if i >= len(SPECIAL)})
        self._scores = np.array(scores, np.int64)

    def __call__(self, chunks: Any) -> Any:
        """Cut distinct chunks."""
        points, chunk, starts, ends = _flat(tf.strings.regex_replace(chunks, " ", "\u2581"))
        count, longest = tf.size(points, tf.int64), self._trie.longest
        columns = [tf.fill([count], np.int64(UNKNOWN))]
        columns += [tf.fill([count], np.int64(_NONE))] * (longest - 1)
        roots = tf.zeros_like(points)
        for size, where, found in self._trie.matches(points, tf.gather(ends, chunk), roots):
            last = (where + size - 1)[:, None]
            columns[size - 1] = tf.tensor_scatter_nd_update(columns[size - 1], last, found)
        # The token of each size that ends at each place (N, D), and its score (U, L, D).
        tokens = tf.stack(columns, axis=1)
        scores = tf.where(tokens == _NONE, _LOW, tf.gather(self._scores, tf.maximum(tokens, 0)))
        splits = tf.concat([starts, [count]], 0)
        scores = tf.RaggedTensor.from_row_splits(scores, splits, validate=False).to_tensor()
        # A batch of empty texts has no place at all, which a loop could not stack.
        scores = tf.pad(scores, [[0, 0], [0, tf.maximum(1 - tf.shape(scores)[1], 0)], [0, 0]])
        sizes = self._best_sizes(scores, longest)
        sizes = tf.boolean_mask(sizes, tf.sequence_mask(ends - starts, tf.shape(sizes)[1]))

        def back(_: Any, at: Any, visited: Any) -> tuple[Any, Any, Any]:
            active = at > starts
            size = tf.where(active, tf.gather(sizes, tf.maximum(at - 1, 0)), 0)
            token = tf.gather_nd(
                tokens, tf.stack([at - 1, size - 1], 1) * tf.cast(active[:, None], at.dtype)
            )
            # The last slot takes what chunks that are done would write.
            visited = tf.tensor_scatter_nd_update(
                visited, tf.where(active, at - size, count)[:, None], token
            )
            return tf.reduce_any(active), at - size, visited

        none = tf.fill([count + 1], np.int64(_NONE))
        _, _, visited = tf.while_loop(lambda more, at, visited: more, back, (count > 0, ends, none))
        return _ragged(visited[:-1], chunk, visited[:-1] != _NONE, chunks)

    @staticmethod
    def _best_sizes(scores: Any, longest: int) -> Any:
        """The size of the last piece of the best cut up to each place: (U, L, D) -> (U, L)."""
        length = tf.shape(scores)[1]
        order = np.arange(longest - 1, -1, -1, dtype=np.int64)

        def step(place: Any, window: Any, sizes: Any) -> tuple[Any, Any, Any]:
            # window[:, k]: the best sum up to k places back. Of equal sums the shorter piece is
            # taken: the size is the last digit of the number that is compared.
            top = tf.reduce_max((window + scores[:, place]) * longest + order, axis=1)
            sizes = sizes.write(place, longest - top % longest)
            return place + 1, tf.concat([(top // longest)[:, None], window[:, :-1]], 1), sizes

        first = tf.pad(
            tf.zeros_like(scores[:, :1, 0]), [[0, 0], [0, longest - 1]], constant_values=_LOW
        )
        first = tf.ensure_shape(first, [None, longest])
        _, _, sizes = tf.while_loop(
            lambda place, window, sizes: place < length,
            step,
            (0, first, tf.TensorArray(tf.int64, length)),
        )
        return tf.transpose(sizes.stack())


def _ragged(tokens: Any, chunk: Any, kept: Any, chunks: Any) -> Any:
    """The kept tokens of each chunk: ragged (U, None)."""
    return tf.RaggedTensor.from_value_rowids(
        tf.boolean_mask(tokens, kept),
        tf.boolean_mask(chunk, kept),
        tf.size(chunks, tf.int64),
        validate=False,
    )
