"""Which token comes next: the likeliest, or one drawn from the likely ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.decoding.beam import Hypotheses
from keras_seq.decoding.search import SearchModel
from keras_seq.errors import UserError
from keras_seq.preprocessing.device_tokenizer import END, MASK, PADDING, START

METHODS = ("greedy", "sample")


@dataclass(frozen=True)
class Choice:
    """How a token is chosen among the scores.

    Args:
        method: ``"greedy"`` takes the likeliest, ``"sample"`` draws.
        temperature: Scores are divided by it before the softmax: below 1 bolder, above 1 wilder.
        top_k: Draws among this many likeliest tokens; None: all.
        top_p: Draws among the fewest likeliest tokens whose probabilities reach this sum; None:
            all. With `top_k` both must hold.
        never: Ids that are never chosen.

    Raises:
        UserError: If a value is out of range.

    Example:
        >>> Choice("sample", temperature=0.0)
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: temperature is 0.0: give a number above 0, or method greedy ...

    Reference:
        Fan, Lewis and Dauphin 2018, Hierarchical Neural Story Generation (top-k); Holtzman et al.
        2020, The Curious Case of Neural Text Degeneration (top-p).
    """

    method: str = "greedy"
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    never: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"method is {self.method!r}: give greedy or sample")
        if not self.temperature > 0:
            raise UserError(
                f"temperature is {self.temperature}: give a number above 0, or method greedy for "
                "the likeliest token each time"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}: give at least 1, or leave it out")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}: give a share above 0 and up to 1")

    def pick(self, logits: Any, chance: Any) -> Any:
        """Chooses one token for each row.

        Args:
            logits: Scores of the tokens, (B, V).
            chance: A uniform number in [0, 1) for each row, (B,); unused by ``"greedy"``.

        Returns:
            The ids, (B,) int32.

        Example:
            >>> import numpy as np
            >>> logits = np.log([[0.1, 0.2, 0.3, 0.4]]).astype("float32")
            >>> [int(Choice("sample", never=()).pick(logits, [u])[0]) for u in (0.05, 0.25, 0.99)]
            [0, 1, 3]
        """
        if self.method == "greedy":
            return tf.argmax(_without(logits, self.never), axis=-1, output_type=tf.int32)
        shares, ids = self._shares(logits)
        # The place where the running sum passes the uniform number. A sampler of TensorFlow's
        # would draw for the batch as a whole, and a text would depend on its neighbours.
        sums = tf.cumsum(shares, axis=-1)
        passed = sums <= tf.cast(chance, sums.dtype)[:, None] * sums[:, -1:]
        place = tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1)
        # Rounding may carry it past the last token that has any share.
        last = tf.reduce_sum(tf.cast(sums < sums[:, -1:], tf.int32), axis=-1)
        place = tf.minimum(place, last)
        return place if ids is None else tf.gather(ids, place, axis=1, batch_dims=1)

    def _shares(self, logits: Any) -> tuple[Any, Any]:
        """What each token may get, not scaled to 1: (B, K), and the ids, or None for all in order.

        The sum of `top_p` counts over all tokens, not over those that `top_k` left.
        """
        logits = _without(logits, self.never) / self.temperature
        shares = tf.nn.softmax(logits)
        if self.top_k is None and self.top_p is None:
            return shares, None
        size = shares.shape[-1]
        shares, ids = tf.math.top_k(shares, min(self.top_k or size, size))
        if self.top_p is not None:
            before = tf.cumsum(shares, axis=-1, exclusive=True)
            shares = tf.where(before <= self.top_p, shares, 0.0)
        return shares, ids


def probabilities(logits: Any, choice: Choice) -> Any:
    """The distribution that a choice draws from.

    Args:
        logits: Scores of the tokens, (B, V).
        choice: How tokens are chosen.

    Returns:
        (B, V) float32 tensor, each row sums to 1; with ``"greedy"`` one token has it all.

    Example:
        >>> import numpy as np
        >>> logits = np.log([[0.1, 0.2, 0.3, 0.4]]).astype("float32")
        >>> probabilities(logits, Choice("sample", top_k=2, never=())).numpy().round(2)
        array([[0.  , 0.  , 0.43, 0.57]], dtype=float32)
    """
    size = tf.shape(logits)[-1]
    if choice.method == "greedy":
        return tf.one_hot(choice.pick(logits, None), size)
    shares, ids = choice._shares(logits)
    shares = shares / tf.reduce_sum(shares, axis=-1, keepdims=True)
    if ids is None:
        return shares
    return tf.reduce_sum(tf.one_hot(ids, size) * shares[..., None], axis=1)


def sample_search(
    model: SearchModel,
    source: Any,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    count: int = 1,
    never: Sequence[int] = (PADDING, START, MASK),
    batch_size: int = 64,
) -> Hypotheses:
    """Draws targets of each source, each token by its probability, in one compiled loop.

    What is drawn depends on the seed, on which source of the call it is and on which of its
    targets, and on nothing else: not on how many are drawn, nor on the batch, nor on padding.

    Args:
        model: From `search_model`; as many targets of a source as it follows are drawn side by
            side.
        source: Ids, (B, S), padded on the right with 0.
        temperature: See `Choice`.
        top_k: See `Choice`.
        top_p: See `Choice`.
        seed: Of the draws; target n of source b draws by (seed, b, n).
        count: Targets of each source, N.
        never: Ids that are never written.
        batch_size: The most sources in a batch.

    Returns:
        The targets in the order in which they are drawn, with their log-probabilities by the
        model itself (as at temperature 1, over all tokens); these are their scores too. A target
        that is cut off has no end.

    Raises:
        UserError: If an option is out of range or there is no source.

    Example:
        >>> def step(tokens, memory, states, position, ancestry=None):
        ...     return tf.one_hot(tf.where(tokens == START, 6, END), 9) * 2, states, None
        >>> often = SearchModel(  # 6 and the end, each at about one half of the times
        ...     encode=lambda source: {"source": source}, step=step, start=lambda memory: {},
        ...     ordered={}, hypotheses=1, length=3, vocabulary=9, aligned=False,
        ... )
        >>> sample_search(often, [[5]], top_k=1).tokens.tolist()
        [[[6, 3, 0]]]
    """
    choice = Choice("sample", temperature, top_k, top_p, tuple(never))
    if count < 1:
        raise UserError(f"{count} targets of each source are wanted: give at least 1")
    source = np.asarray(source, "int32")
    if not len(source):
        raise UserError("there is no source: give at least one")
    side = model.hypotheses
    rounds = -(-count // side)
    # What the model does not follow side by side are rows of their own.
    rows = np.repeat(source, rounds, axis=0)
    chances = np.stack(
        [
            np.random.default_rng([abs(seed), row, n]).random(model.length, "float32")
            for row in range(len(source))
            for n in range(rounds * side)
        ]
    ).reshape(len(rows), side, model.length)
    key = ("sample", choice)
    if key not in model.traced:
        model.traced[key] = model.function(_sampled(model, choice))
    parts = [
        model.traced[key](
            tf.constant(rows[i : i + batch_size]), tf.constant(chances[i : i + batch_size])
        )
        for i in range(0, len(rows), batch_size)
    ]
    found = {}
    for name in parts[0]:
        every = np.concatenate([part[name] for part in parts])  # (B rounds, K, ...)
        every = every.reshape(len(source), rounds * side, *every.shape[2:])
        found[name] = every[:, :count]
    logs = found["log_probabilities"]
    return Hypotheses(found["tokens"], logs, logs, found.get("alignments"))


def _sampled(model: SearchModel, choice: Choice) -> Callable[[Any, Any], dict[str, Any]]:
    """The loop: (source (R, S), chances (R, K, L)) -> tokens, log-probabilities, alignments."""
    k, length = model.hypotheses, model.length

    def loop(source: Any, chances: Any) -> dict[str, Any]:
        memory = model.encode(source)
        count = tf.shape(source)[0]
        own = tf.tile(tf.range(k)[None, :, None], (count, 1, length))  # nothing changes places
        luck = tf.transpose(chances, (2, 0, 1))  # (L, R, K)
        start: dict[str, Any] = {
            "place": tf.constant(0),
            "tokens": tf.zeros((length, count, k), tf.int32),
            "last": tf.fill((count, k), START),
            "log": tf.zeros((count, k)),
            "done": tf.zeros((count, k), tf.bool),
            "states": model.start(memory),
        }
        if model.aligned:
            start["attended"] = tf.zeros((length, count, k, tf.shape(source)[1]))

        def unfinished(now: dict[str, Any]) -> Any:
            return tf.logical_and(now["place"] < length, ~tf.reduce_all(now["done"]))

        def body(now: dict[str, Any]) -> tuple[dict[str, Any]]:
            place, done = now["place"], now["done"]
            logits, states, attended = model.step(
                now["last"], memory, now["states"], tf.fill((count,), place), own
            )
            logits = tf.reshape(tf.cast(logits, tf.float32), (-1, model.vocabulary))
            new = tf.reshape(choice.pick(logits, tf.reshape(luck[place], (-1,))), (-1, k))
            logs = tf.reshape(tf.nn.log_softmax(logits), (-1, k, model.vocabulary))
            log = tf.where(done, 0.0, tf.gather(logs, new, batch_dims=2))
            new = tf.where(done, PADDING, new)
            at = place[None, None]
            found = {
                "place": place + 1,
                "tokens": tf.tensor_scatter_nd_update(now["tokens"], at, new[None]),
                "last": new,
                "log": now["log"] + log,
                "done": done | tf.equal(new, END),
                "states": states,
            }
            if model.aligned:
                attended = tf.where(done[..., None], 0.0, tf.cast(attended, tf.float32))
                found["attended"] = tf.tensor_scatter_nd_update(now["attended"], at, attended[None])
            return (found,)

        shapes = tf.nest.map_structure(lambda x: x.shape, start)
        (last,) = tf.while_loop(
            unfinished, body, (start,), shape_invariants=(shapes,), parallel_iterations=1
        )
        found = {
            "tokens": tf.transpose(last["tokens"], (1, 2, 0)),
            "log_probabilities": last["log"],
        }
        if model.aligned:
            found["alignments"] = tf.transpose(last["attended"], (1, 2, 0, 3))
        return found

    return loop


def _without(logits: Any, never: Sequence[int]) -> Any:
    """Scores in float32, those of forbidden tokens at the bottom."""
    logits = tf.cast(logits, tf.float32)
    if not never:
        return logits
    forbidden = tf.reduce_any(tf.range(logits.shape[-1])[:, None] == list(never), axis=-1)
    return tf.where(forbidden, -1e30, logits)
