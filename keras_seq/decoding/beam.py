"""Beam search: the likeliest targets of each source, in one compiled loop.

Hypotheses that have ended are kept apart from those that go on, with the score they ended with. A
source is done when as many have ended as the beam is wide, or when none that goes on can still
be among the best that are wanted. What a source gets depends on nothing else in its batch, nor on
padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.decoding.search import SearchModel
from keras_seq.errors import UserError
from keras_seq.preprocessing.device_tokenizer import END, MASK, PADDING, START

_NEVER = -1e9  # a log-probability that nothing real comes near, and that sums do not overflow


@dataclass(frozen=True)
class BeamOptions:
    """What beam search looks for.

    The score of a hypothesis of n tokens, its end among them, is
    ``log p / ((5 + n) / 6) ** length_penalty + coverage_penalty * c``, with
    ``c = sum_s log min(1, sum_t a[t, s])`` over the real source steps.

    Args:
        length_penalty: 0 ranks by probability, which prefers short ones; about 1 by the mean of
            the tokens; larger ones prefer longer hypotheses.
        coverage_penalty: 0 and up: how much is taken off for source steps that got less than one
            whole attention. It counts when hypotheses are ranked at their end.
        min_length: The least tokens before the end.
        no_repeat: No n tokens in a row come twice in a hypothesis; 0: they may.
        never: Ids that are never written.

    Raises:
        UserError: If a value is out of range.

    Example:
        >>> BeamOptions(coverage_penalty=-1.0)
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: coverage_penalty is -1.0: give 0 or more

    Reference:
        Wu et al. 2016, Google's Neural Machine Translation System (both penalties); Paulus et al.
        2018, A Deep Reinforced Model for Abstractive Summarization (`no_repeat`).
    """

    length_penalty: float = 1.0
    coverage_penalty: float = 0.0
    min_length: int = 0
    no_repeat: int = 0
    never: tuple[int, ...] = (PADDING, START, MASK)

    def __post_init__(self) -> None:
        for name in ("length_penalty", "coverage_penalty", "min_length", "no_repeat"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}: give 0 or more")


@dataclass(frozen=True)
class Hypotheses:
    """What a search found, the best of each source first.

    Args:
        tokens: (B, N, L) int32, without the start, with the end where it came; padded with 0.
        scores: (B, N) float32.
        log_probabilities: (B, N) float32, of the whole hypotheses.
        alignments: (B, N, L, S) float32, what each token attended to; None where the model has no
            attention.
    """

    tokens: np.ndarray
    scores: np.ndarray
    log_probabilities: np.ndarray
    alignments: np.ndarray | None


def beam_search(
    model: SearchModel,
    source: Any,
    *,
    options: BeamOptions | None = None,
    best: int = 1,
    prefix: Any = None,
    batch_size: int = 64,
) -> Hypotheses:
    """Finds the best targets of each source.

    Args:
        model: From `search_model`; as many hypotheses as it follows are the beam.
        source: Ids, (B, S), padded on the right with 0.
        options: What is looked for; None: the defaults.
        best: How many are returned of each source, N, up to the beam.
        prefix: What each target begins with, (B, P) ids padded on the right with 0, or None.
        batch_size: The most sources in a batch.

    Returns:
        The hypotheses. Where fewer than N have ended, the best of those cut off follow.

    Raises:
        UserError: If an option is out of range or the prefix is too long.

    Example:
        >>> def step(tokens, memory, states, position, ancestry=None):
        ...     after = tf.where(tokens == START, memory["first"], tokens + 1)  # then n + 1
        ...     return 9 * tf.one_hot(after, 9), states, None
        >>> counting = SearchModel(
        ...     encode=lambda source: {"first": source[:, :1]}, step=step, start=lambda memory: {},
        ...     ordered={}, hypotheses=1, length=3, vocabulary=9, aligned=False,
        ... )
        >>> beam_search(counting, [[5], [6]]).tokens.tolist()
        [[[5, 6, 7]], [[6, 7, 8]]]
    """
    options = options or BeamOptions()
    if not 1 <= best <= model.hypotheses:
        raise UserError(
            f"{best} hypotheses of each source are wanted, and the beam is {model.hypotheses}: "
            f"give 1 to {model.hypotheses}, or a wider beam"
        )
    source = np.asarray(source, "int32")
    prefix = np.zeros((len(source), 0), "int32") if prefix is None else np.asarray(prefix, "int32")
    if prefix.shape[1] >= model.length:
        raise UserError(
            f"the prefix has {prefix.shape[1]} tokens, and a target at most {model.length} with "
            "its end: give a shorter prefix or a greater length"
        )
    key = (options, best)
    if key not in model.traced:
        model.traced[key] = model.function(search_function(model, options, best=best))
    search = model.traced[key]
    parts = [
        search(tf.constant(source[i : i + batch_size]), tf.constant(prefix[i : i + batch_size]))
        for i in range(0, len(source), batch_size)
    ]
    if not parts:
        raise UserError("there is no source: give at least one")
    joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    return Hypotheses(
        joined["tokens"],
        joined["scores"],
        joined["log_probabilities"],
        joined.get("alignments"),
    )


def search_function(
    model: SearchModel, options: BeamOptions, *, best: int = 1
) -> Callable[[Any, Any], dict[str, Any]]:
    """Returns the whole search as one function of tensors, as it is exported.

    Args:
        model: From `search_model`.
        options: What is looked for.
        best: How many are returned of each source, N.

    Returns:
        ``(source (B, S), prefix (B, P)) -> tokens, scores, log_probabilities`` and, where the
        model has attention, ``alignments``; see `Hypotheses`. A prefix of no tokens is none.
    """
    return _Search(model, options, best)


class _Search:
    def __init__(self, model: SearchModel, options: BeamOptions, best: int) -> None:
        self.model = model
        self.options = options
        self.best = best
        self.beam = model.hypotheses
        self.length = model.length

    def __call__(self, source: Any, prefix: Any) -> dict[str, Any]:
        memory = self.model.encode(source)
        batch, steps = tf.shape(source)[0], tf.shape(source)[1]
        real = tf.not_equal(source, PADDING)
        k, length = self.beam, self.length
        own = tf.tile(tf.range(k)[None], (batch, 1))  # (B, K)
        goes_on = {
            "place": tf.constant(0),
            "tokens": tf.zeros((batch, k, length), tf.int32),
            # All hypotheses begin alike: only the first one counts.
            "log": tf.tile(tf.constant([[0.0] + [_NEVER] * (k - 1)]), (batch, 1)),
            "last": tf.fill((batch, k), START),
            "ancestry": tf.tile(own[:, :, None], (1, 1, length)),
            "states": self.model.start(memory),
            "ended_tokens": tf.zeros((batch, k, length), tf.int32),
            "ended_log": tf.fill((batch, k), _NEVER),
            "ended_score": tf.fill((batch, k), 2 * _NEVER),
            "ended_ancestry": tf.zeros((batch, k, length), tf.int32),
            "done": tf.zeros((batch,), tf.bool),
        }
        aligned = self.model.aligned
        if aligned:
            goes_on["attended"] = tf.zeros((length, batch, k, steps))
            goes_on["cover"] = tf.zeros((batch, k, steps))

        def unfinished(now: dict[str, Any]) -> Any:
            return tf.logical_and(now["place"] < length, ~tf.reduce_all(now["done"]))

        def body(now: dict[str, Any]) -> tuple[dict[str, Any]]:
            found = self._advance(now, memory, prefix, real)
            # A step from an exported file does not know the batch that this trace has.
            tf.nest.map_structure(lambda new, old: new.set_shape(old.shape), found, now)
            return (found,)

        shapes = tf.nest.map_structure(lambda x: x.shape, goes_on)
        (last,) = tf.while_loop(
            unfinished, body, (goes_on,), shape_invariants=(shapes,), parallel_iterations=1
        )
        return self._ranked(last, real)

    def _advance(self, now: dict[str, Any], memory: Any, prefix: Any, real: Any) -> dict[str, Any]:
        """One token more for every hypothesis that goes on."""
        k, length, place, aligned = self.beam, self.length, now["place"], self.model.aligned
        batch = tf.shape(now["log"])[0]
        here = tf.range(length) == place  # (L,)
        own = tf.tile(tf.range(k)[None], (batch, 1))
        ancestry = tf.where(here, own[:, :, None], now["ancestry"])
        logits, states, attended = self.model.step(
            now["last"], memory, now["states"], tf.fill((batch,), place), ancestry
        )
        logs = tf.nn.log_softmax(tf.cast(logits, tf.float32))  # (B, K, V)
        logs = self._forbidden(logs, now["tokens"], place, prefix)
        # Of each hypothesis at most one candidate ends it: 2 K of them hold K that go on. Where
        # there is one hypothesis and its best candidate ends it, the search is over.
        wide = min(2 * k if k > 1 else 1, self.model.vocabulary)
        if self.model.compile and wide == 1:  # XLA would sort
            values = tf.reduce_max(logs, -1, keepdims=True)
            ids = tf.argmax(logs, -1, tf.int32)[..., None]
        else:
            values, ids = tf.math.top_k(logs, wide)  # (B, K, 2 K)
        values = tf.reshape(values + now["log"][..., None], (batch, k * wide))
        ids = tf.reshape(ids, (batch, k * wide))
        total = min(2 * k, k * wide)
        values, chosen = tf.math.top_k(values, total)  # (B, 2 K), best first
        ids = tf.gather(ids, chosen, batch_dims=1)
        parent = chosen // wide
        ends = tf.equal(ids, END)
        possible = values > _NEVER / 2
        found: dict[str, Any] = {"place": place + 1}
        if aligned:
            attended = tf.cast(attended, tf.float32)
            found["attended"] = tf.tensor_scatter_nd_update(
                now["attended"], place[None, None], attended[None]
            )
            cover = now["cover"] + attended

        # What ends: an end among the K best takes part.
        candidate_tokens = tf.where(
            here, ids[..., None], tf.gather(now["tokens"], parent, batch_dims=1)
        )
        candidate_ancestry = tf.gather(ancestry, parent, batch_dims=1)
        ending = ends & possible & (tf.range(total) < k) & ~now["done"][:, None]
        score = values / self._length_penalty(place + 1)
        if aligned and self.options.coverage_penalty:
            score += self._coverage(tf.gather(cover, parent, batch_dims=1), real)
        score = tf.where(ending, score, 2 * _NEVER)
        scores = tf.concat([now["ended_score"], score], 1)
        ended_score, keep = tf.math.top_k(scores, k)
        for name, more in (
            ("tokens", candidate_tokens),
            ("ancestry", candidate_ancestry),
            ("log", values),
        ):
            both = tf.concat([now[f"ended_{name}"], more], 1)
            found[f"ended_{name}"] = tf.gather(both, keep, batch_dims=1)
        found["ended_score"] = ended_score

        # What goes on: the K best that do not end.
        values = tf.where(ends | ~possible, _NEVER, values)
        log, order = tf.math.top_k(values, k)
        parent = tf.gather(parent, order, batch_dims=1)  # (B, K)
        found["log"] = log
        found["last"] = tf.gather(ids, order, batch_dims=1)
        found["tokens"] = tf.gather(candidate_tokens, order, batch_dims=1)
        found["ancestry"] = tf.gather(candidate_ancestry, order, batch_dims=1)
        found["states"] = {
            name: tf.gather(state, parent, batch_dims=1) if self.model.ordered[name] else state
            for name, state in states.items()
        }
        if aligned:
            found["cover"] = tf.gather(cover, parent, batch_dims=1)

        # The best that is still possible: as if all further tokens were certain.
        bound = log[:, 0] / self._length_penalty(length)
        full = ended_score[:, -1] > 1.5 * _NEVER
        settled = bound <= ended_score[:, self.best - 1]
        found["done"] = now["done"] | full | settled | (log[:, 0] <= _NEVER / 2)
        return self._frozen(now, found)

    def _frozen(self, now: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
        """What was done before keeps what it had, so that the batch makes no difference."""
        for name in ("tokens", "log", "ancestry", "cover"):
            if name not in found:
                continue
            done = tf.reshape(now["done"], (-1,) + (1,) * (len(found[name].shape) - 1))
            found[name] = tf.where(done, now[name], found[name])
        return found

    def _forbidden(self, logs: Any, tokens: Any, place: Any, prefix: Any) -> Any:
        """Takes away what may not come."""
        ids = np.arange(self.model.vocabulary)
        lost = tf.constant(np.where(np.isin(ids, self.options.never), 2 * _NEVER, 0), tf.float32)
        if self.options.min_length:
            early = tf.constant(np.where(ids == END, 2 * _NEVER, 0), tf.float32)
            lost += tf.where(place < self.options.min_length, early, 0.0)
        # A sum with a row is twice as fast as a choice by a row.
        logs += lost
        if self.options.no_repeat:
            logs = tf.where(self._repeated(tokens, place), 2 * _NEVER, logs)
        if prefix.shape[1] == 0:
            return logs

        def only_prefix() -> Any:
            # Behind the prefix stands a 0: there any token may come.
            wanted = prefix[:, place]  # (B,)
            other = (wanted > 0)[:, None] & (wanted[:, None] != tf.constant(ids, tf.int32))
            return tf.where(other[:, None], 2 * _NEVER, logs)

        return tf.cond(place < tf.shape(prefix)[1], only_prefix, lambda: logs)

    def _repeated(self, tokens: Any, place: Any) -> Any:
        """(B, K, V) what would make n tokens in a row come twice."""
        n, length = self.options.no_repeat, self.length
        batch = tf.shape(tokens)[0]
        starts = tf.range(length)
        same = tf.ones_like(tokens, tf.bool)  # (B, K, L): an n-gram of the past starts here
        for offset in range(n - 1):
            past = tf.roll(tokens, -offset, axis=2)
            latest = tf.maximum(place - (n - 1) + offset, 0)
            same &= past == tf.gather(tokens, latest, axis=2)[..., None]
        same &= (starts + n - 1 < place) & (place >= n - 1)
        next_ids = tf.where(same, tf.roll(tokens, -(n - 1), axis=2), -1)  # -1: none
        rows = tf.reshape(next_ids, (batch * self.beam, length))
        hits = tf.reduce_any(
            tf.one_hot(rows, self.model.vocabulary, on_value=True, off_value=False, dtype=tf.bool),
            axis=1,
        )
        return tf.reshape(hits, (batch, self.beam, self.model.vocabulary))

    def _length_penalty(self, count: Any) -> Any:
        return ((5.0 + tf.cast(count, tf.float32)) / 6.0) ** self.options.length_penalty

    def _coverage(self, cover: Any, real: Any) -> Any:
        """(B, N) from (B, N, S)."""
        logs = tf.math.log(tf.clip_by_value(cover, 1e-9, 1.0))
        logs = tf.where(real[:, None], logs, 0.0)
        return self.options.coverage_penalty * tf.reduce_sum(logs, -1)

    def _ranked(self, last: dict[str, Any], real: Any) -> dict[str, Any]:
        """The best first: those that have ended, then those that were cut off."""
        aligned = self.model.aligned
        cut = last["log"] / self._length_penalty(self.length)
        if aligned and self.options.coverage_penalty:
            cut += self._coverage(last["cover"], real)
        # Behind all that have ended, in their own order.
        there = tf.where(last["log"] > _NEVER / 2, cut + 0.5 * _NEVER, 4 * _NEVER)
        ended = tf.where(last["ended_score"] > 1.5 * _NEVER, last["ended_score"], 4 * _NEVER)
        _, order = tf.math.top_k(tf.concat([ended, there], 1), self.best)

        def pick(ended: Any, going: Any) -> Any:
            return tf.gather(tf.concat([ended, going], 1), order, batch_dims=1)

        found = {
            "tokens": pick(last["ended_tokens"], last["tokens"]),
            "scores": pick(last["ended_score"], cut),
            "log_probabilities": pick(last["ended_log"], last["log"]),
        }
        if aligned:
            ancestry = pick(last["ended_ancestry"], last["ancestry"])  # (B, N, L)
            attended = tf.transpose(last["attended"], (1, 0, 2, 3))  # (B, L, K, S)
            rows = tf.transpose(ancestry, (0, 2, 1))  # (B, L, N)
            picked = tf.gather(attended, rows, batch_dims=2)  # (B, L, N, S)
            alignments = tf.transpose(picked, (0, 2, 1, 3))
            written = tf.cast(found["tokens"] > 0, tf.float32)[..., None]
            found["alignments"] = alignments * written
        return found


def greedy_search(model: SearchModel, source: Any, **options: Any) -> Hypotheses:
    """Takes the likeliest token each time: beam search with a beam of 1.

    Args:
        model: From `search_model` with one hypothesis.
        source: As for `beam_search`.
        **options: As for `beam_search`.

    Returns:
        One hypothesis of each source.

    Raises:
        UserError: If the model follows more than one hypothesis.
    """
    if model.hypotheses != 1:
        raise UserError(
            f"greedy search follows one hypothesis, and the model {model.hypotheses}: make it with "
            "search_model(model, hypotheses=1)"
        )
    return beam_search(model, source, **options)


def strip(tokens: Sequence[int] | np.ndarray) -> list[int]:
    """Returns the ids of a hypothesis without its end and padding.

    Example:
        >>> strip([7, 8, 3, 0, 0])
        [7, 8]
    """
    return [int(t) for t in tokens if t not in (PADDING, END)]
