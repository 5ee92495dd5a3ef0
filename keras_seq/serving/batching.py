"""Requests that arrive while a call is running are joined into the next one.

Nobody waits for company: a call starts at once when nothing runs. What piles up behind it goes
together, so that under load the cost of a call is shared.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_seq.serving.failures import invalid

Values = dict[str, np.ndarray]


@dataclass
class _Waiting:
    values: Values
    rows: int
    key: tuple[Any, ...]
    answer: asyncio.Future[Values]


class Lane:
    """The queue before one signature of one version. It lives in one event loop.

    Args:
        run: Computes the outputs of inputs; each row stands for itself.
        executor: The threads that `run` is called on.
        most_rows: The most rows of a joined call.
        observe: Is told the rows of each call.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> async def both():
        ...     with ThreadPoolExecutor() as threads:
        ...         lane = Lane(lambda v: {"y": v["x"] * 2}, threads, 8, calls.append)
        ...         return await asyncio.gather(*(lane({"x": np.full((n, 1), n)}) for n in (1, 2)))
        >>> calls = []
        >>> [answer["y"].tolist() for answer in asyncio.run(both())], calls
        ([[[2]], [[4], [4]]], [3])
    """

    def __init__(
        self,
        run: Callable[[Values], Values],
        executor: Executor,
        most_rows: int,
        observe: Callable[[float], Any],
    ) -> None:
        self._run = run
        self._executor = executor
        self._most_rows = most_rows
        self._observe = observe
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, values: Values) -> Values:
        """Answers one request.

        Args:
            values: Its inputs, batch axis first.

        Returns:
            Its outputs.

        Raises:
            ServingError: If its inputs differ in their number of rows.
        """
        counts = {len(value) for value in values.values()}
        if len(counts) != 1:
            raise invalid(
                "Batching Run() input tensors must have equal 0th-dimension size: "
                + ", ".join(f"{name} has {len(value)}" for name, value in values.items())
            )
        key = tuple((name, value.shape[1:]) for name, value in values.items())
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(values, counts.pop(), key, answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        try:
            while together := self._take():
                try:
                    await self._answer(together)
                except Exception as error:
                    for item in together:
                        if not item.answer.done():
                            item.answer.set_exception(error)
        finally:
            self._worker = None

    def _take(self) -> list[_Waiting]:
        """The next request, and the others of its shape that fit into a call with it."""
        together: list[_Waiting] = []
        left: deque[_Waiting] = deque()
        rows = 0
        while self._waiting:
            item = self._waiting.popleft()
            if item.answer.done():
                continue  # its client has gone
            fits = together and item.key == together[0].key and rows + item.rows <= self._most_rows
            # No rows at all cannot be told from an answer of another's rows: they go alone.
            if not together or (fits and item.rows and together[0].rows):
                together.append(item)
                rows += item.rows
            else:
                left.append(item)
        self._waiting = left
        return together

    async def _answer(self, together: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        values = together[0].values
        if len(together) > 1:
            values = {name: np.concatenate([item.values[name] for item in together])
                      for name in values}  # fmt: skip
        rows = sum(item.rows for item in together)
        self._observe(rows)
        try:
            answers = await loop.run_in_executor(self._executor, self._run, values)
        except Exception as error:
            if len(together) == 1:
                if not together[0].answer.done():
                    together[0].answer.set_exception(error)
                return
            # One bad request must not spoil the others: each is asked by itself.
            for item in together:
                await self._answer([item])
            return
        start = 0
        for item in together:
            stop = start + item.rows
            if not item.answer.done():
                mine = answers
                if len(together) > 1:
                    mine = {name: value[start:stop] for name, value in answers.items()}
                item.answer.set_result(mine)
            start = stop
