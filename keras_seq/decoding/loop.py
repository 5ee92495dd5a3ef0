"""Writing on from a prompt: whole batches in one compiled loop, or token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.decoding.sampling import Choice
from keras_seq.decoding.step import Stepper
from keras_seq.errors import UserError

PADDING, END = 0, 3


def generate(
    stepper: Stepper,
    prompts: Any,
    *,
    length: int,
    method: str = "greedy",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    end: int | None = END,
    never: Sequence[int] = (PADDING,),
    states: dict[str, Any] | None = None,
    compile: bool | None = None,
) -> np.ndarray:
    """Writes on from prompts, all rows in one compiled loop.

    A row comes out the same alone, in any batch at the same place, and whatever the lengths of
    the others. Where the model sees at most `context` positions, the older half of them is
    forgotten each time that they are full.

    Args:
        stepper: The step of the model.
        prompts: Ids of each row: a list of sequences, or (B, P) padded on the right with 0; at
            least one id each.
        length: Most tokens to add to each row.
        method: ``"greedy"`` or ``"sample"``.
        temperature: See `Choice`.
        top_k: See `Choice`.
        top_p: See `Choice`.
        seed: Of the draws; row b draws by (seed, b).
        end: The id that ends a row; it is kept. None: no such id.
        never: Ids that are never written. Keep 0 among them: the whole model does not look at
            padding, and a step would.
        states: What the model remembers before the prompt, (B, ...) by name; None: zeros.
        compile: Whether XLA compiles the loop: it takes seconds once, and then less for each
            token. None leaves it out.

    Returns:
        Prompts and what was added, (B, N) int32, padded on the right with 0.

    Raises:
        UserError: If a prompt is empty or an option is out of range.

    Example:
        >>> def count(tokens, states, position):  # after n comes n + 1
        ...     return tf.one_hot(tokens + 1, 9), states
        >>> generate(Stepper(count, {}, None), [[4, 5], [7]], length=3, end=8).tolist()
        [[4, 5, 6, 7, 8], [7, 8, 0, 0, 0]]
    """
    choice = Choice(method, temperature, top_k, top_p, tuple(never))
    rows = _rows(prompts)
    _check_length(length)
    wanted = [len(row) + length for row in rows]
    chances = _chances(seed, wanted, method)
    first = stepper.start(len(rows)) if states is None else dict(states)
    done = [length == 0 for _ in rows]
    while not all(done):
        starts = [_start(len(row), stepper.context) for row in rows]
        parts = [row[start:] for row, start in zip(rows, starts, strict=True)]
        # How far each row gets before it has to forget: a row that is done does not move.
        stops = [
            len(part)
            if over
            else min(want - start, stepper.context + 1 if stepper.context else want)
            for part, start, want, over in zip(parts, starts, wanted, done, strict=True)
        ]
        size = max(stops)
        if stepper.context and max(wanted) > stepper.context:
            size = stepper.context + 1  # one shape, one trace
        text = np.zeros((len(rows), size), "int32")
        luck = np.zeros((len(rows), size), "float32")
        for i, (part, start) in enumerate(zip(parts, starts, strict=True)):
            text[i, : len(part)] = part
            found = chances[i][start : start + size]
            luck[i, : len(found)] = found
        loop = _traced(stepper, choice, end, "loop", compile)
        lengths = np.array([len(part) for part in parts], "int32")
        text = loop(text, lengths, np.array(stops, "int32"), luck, first).numpy()
        for i, part in enumerate(parts):
            new = text[i, len(part) : stops[i]]
            if end is not None and end in new:
                new = new[: int(np.argmax(new == end)) + 1]
                done[i] = True
            rows[i] = np.concatenate([rows[i], new])
            done[i] = done[i] or len(rows[i]) >= wanted[i]
    out = np.zeros((len(rows), max(map(len, rows))), "int32")
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def stream(
    stepper: Stepper,
    prompt: Sequence[int] | np.ndarray,
    *,
    length: int,
    method: str = "greedy",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    end: int | None = END,
    never: Sequence[int] = (PADDING,),
    states: dict[str, Any] | None = None,
) -> Iterator[int]:
    """Writes on from one prompt and hands over each token as soon as it is there.

    The tokens are those of `generate` with the same arguments.

    Args:
        stepper: The step of the model.
        prompt: Its ids, at least one.
        length: Most tokens to add.
        method: As `generate`.
        temperature: As `generate`.
        top_k: As `generate`.
        top_p: As `generate`.
        seed: As `generate`.
        end: As `generate`.
        never: As `generate`.
        states: As `generate`, for one row.

    Yields:
        The new ids; `end` is the last, where it comes.

    Raises:
        UserError: If the prompt is empty or an option is out of range.

    Example:
        >>> def count(tokens, states, position):  # after n comes n + 1
        ...     return tf.one_hot(tokens + 1, 9), states
        >>> list(stream(Stepper(count, {}, None), [4], length=3))
        [5, 6, 7]
    """
    choice = Choice(method, temperature, top_k, top_p, tuple(never))
    row = _rows([prompt])[0].tolist()
    _check_length(length)
    return _stream(stepper, choice, row, length, seed, end, states)


def _stream(
    stepper: Stepper,
    choice: Choice,
    row: list[int],
    length: int,
    seed: int,
    end: int | None,
    states: dict[str, Any] | None,
) -> Iterator[int]:
    chances = _chances(seed, [len(row) + length], choice.method)[0]
    one = _traced(stepper, choice, end, "one", None)
    first = stepper.start(1) if states is None else dict(states)
    start, memory, read = -1, first, 0
    for _ in range(length):
        if _start(len(row), stepper.context) != start:
            start = _start(len(row), stepper.context)
            memory, read = first, start
        new = 0
        while read < len(row):
            luck = chances[read + 1 : read + 2].astype("float32")
            token, place = np.array([row[read]], "int32"), np.array([read - start], "int32")
            found, memory = one(token, memory, place, luck)
            new, read = int(found[0]), read + 1
        row.append(new)
        yield new
        if new == end:
            return


def _rows(prompts: Any) -> list[np.ndarray]:
    """The prompts without their padding."""
    rows = []
    for index, prompt in enumerate(prompts):
        row = np.asarray(prompt).astype("int32").ravel()
        row = row[: int(np.max(np.nonzero(row)[0], initial=-1)) + 1]
        if not len(row):
            raise UserError(f"prompt {index} is empty: give at least one token to start from")
        rows.append(row)
    if not rows:
        raise UserError("there is no prompt: give at least one")
    return rows


def _check_length(length: int) -> None:
    if length < 0:
        raise UserError(f"length is {length}: give the number of tokens to add, 0 or more")


def _chances(seed: int, wanted: list[int], method: str) -> list[np.ndarray]:
    """A uniform number for each position of each row; they know nothing of other rows."""
    if method == "greedy":
        return [np.zeros(count, "float32") for count in wanted]
    return [
        np.random.default_rng([abs(seed), row]).random(count, "float32")
        for row, count in enumerate(wanted)
    ]


def _start(count: int, context: int | None) -> int:
    """The first position that is still seen when token number `count` is to be written."""
    if context is None or count <= context:
        return 0
    hop = max(1, context // 2)
    return -(-(count - context) // hop) * hop


def _traced(
    stepper: Stepper, choice: Choice, end: int | None, what: str, compile: bool | None
) -> Callable[..., Any]:
    key = (what, choice, end, compile)
    if key not in stepper.traced:
        make = _loop if what == "loop" else _one
        stepper.traced[key] = tf.function(
            make(stepper.step, choice, end),
            autograph=False,
            jit_compile=compile or None,
            reduce_retracing=not compile,
        )
    return stepper.traced[key]


def _one(step: Any, choice: Choice, end: int | None) -> Callable[..., Any]:
    def one(token: Any, states: dict[str, Any], position: Any, chance: Any) -> tuple[Any, Any]:
        logits, states = step(token, states, position)
        return choice.pick(logits, chance), states

    return one


def _loop(step: Any, choice: Choice, end: int | None) -> Callable[..., Any]:
    def loop(text: Any, lengths: Any, stops: Any, chances: Any, states: dict[str, Any]) -> Any:
        """Fills each row of `text` (B, N) from `lengths` up to `stops`."""
        # Rows of the loop's own tensor are positions, so that one of them is written at a time.
        text, chances = tf.transpose(text), tf.transpose(chances)  # (N, B)
        last = tf.reduce_max(stops)

        def goes_on(place: Any, text: Any, done: Any, states: Any) -> Any:
            return tf.logical_and(place + 1 < last, tf.logical_not(tf.reduce_all(done)))

        def body(place: Any, text: Any, done: Any, states: Any) -> tuple[Any, ...]:
            token = text[place]
            logits, states = step(token, states, tf.fill(tf.shape(token), place))
            place += 1
            new = choice.pick(logits, chances[place])
            given = place < lengths
            over = tf.logical_or(done, place >= stops)
            new = tf.where(over, PADDING, new)
            new = tf.where(given, text[place], new)
            if end is not None:
                done = tf.logical_or(done, tf.logical_and(~given, new == end))
            text = tf.tensor_scatter_nd_update(text, place[None, None], new[None])
            return place, text, done, states

        start = (tf.constant(0), text, stops <= lengths, states)
        _, text, _, _ = tf.while_loop(goes_on, body, start)
        return tf.transpose(text)

    return loop
