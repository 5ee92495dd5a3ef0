"""What both protocols share: the models, the limits, the counters."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Executor

from keras_seq.serving.failures import ServingError
from keras_seq.serving.metrics import Metrics
from keras_seq.serving.models import Catalog
from keras_seq.serving.options import Options


class Desk:
    """Where requests of both protocols come in.

    Args:
        catalog: The models.
        options: Of the server.
        metrics: Of the server.
        executor: Threads for what takes long.
    """

    def __init__(
        self, catalog: Catalog, options: Options, metrics: Metrics, executor: Executor
    ) -> None:
        self.catalog = catalog
        self.options = options
        self.metrics = metrics
        self.executor = executor
        self.log = logging.getLogger("keras_seq.serving")
        #: Set when the server is asked to stop: from then on it is not ready.
        self.stopping = False
        self._taken = 0

    @property
    def ready(self) -> bool:
        """Whether every model answers, and goes on to."""
        return not self.stopping and self.catalog.ready

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Takes a place among the requests that are answered at the same time.

        Yields:
            Nothing.

        Raises:
            ServingError: If all places are taken.
        """
        if self._taken >= self.options.max_requests:
            raise ServingError(
                "UNAVAILABLE",
                f"{self._taken} requests are being answered, and the server takes no more: try "
                "again",
            )
        self._taken += 1
        self.metrics.under_way.inc()
        try:
            yield
        finally:
            self._taken -= 1
            self.metrics.under_way.dec()

    def answered(self, name: str, protocol: str, code: str, seconds: float) -> None:
        """Counts a request; names that are not served are counted together."""
        known = name if self.catalog[name] is not None else ""
        self.metrics.answered(known, protocol, code, seconds)
