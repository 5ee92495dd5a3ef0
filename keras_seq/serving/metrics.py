"""What Prometheus reads: requests, times, batches and versions of one server."""

from __future__ import annotations

import prometheus_client as prometheus

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server.

    Example:
        >>> metrics = Metrics()
        >>> metrics.answered("co2", "REST", "OK", 0.003)
        >>> b'keras_seq_requests_total{code="OK",model="co2",protocol="REST"} 1.0' in metrics.page()
        True
    """

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "keras_seq_requests",
            "Requests to predict, by what was answered.",
            ("model", "protocol", "code"),
            registry=self._registry,
        )
        self._seconds = prometheus.Histogram(
            "keras_seq_request_seconds",
            "Time from the whole request to its answer.",
            ("model", "protocol"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._rows = prometheus.Histogram(
            "keras_seq_batch_rows",
            "Rows of a call of the model.",
            ("model",),
            buckets=_ROWS,
            registry=self._registry,
        )
        self.under_way = prometheus.Gauge(
            "keras_seq_requests_under_way",
            "Requests to predict that are being answered.",
            registry=self._registry,
        )
        self._versions = prometheus.Gauge(
            "keras_seq_model_version_available",
            "1 where a version answers.",
            ("model", "version"),
            registry=self._registry,
        )
        self._loads = prometheus.Counter(
            "keras_seq_model_loads",
            "Versions loaded, and versions that could not be.",
            ("model", "result"),
            registry=self._registry,
        )

    def answered(self, model: str, protocol: str, code: str, seconds: float) -> None:
        """Counts a request.

        Args:
            model: Name of a model that is served, or an empty name: labels must stay few.
            protocol: ``"REST"`` or ``"GRPC"``.
            code: ``"OK"``, or the name of an error.
            seconds: Time it took.
        """
        self._requests.labels(model, protocol, code).inc()
        self._seconds.labels(model, protocol).observe(seconds)

    def called(self, model: str, rows: float) -> None:
        """Counts a call of the model and its rows."""
        self._rows.labels(model).observe(rows)

    def available(self, model: str, version: int, value: bool) -> None:
        """Notes that a version has come or gone."""
        if value:
            self._versions.labels(model, str(version)).set(1)
        else:
            # A gone version leaves no line behind: there may be thousands in a year.
            self._versions.remove(model, str(version))

    def loaded(self, model: str, result: str) -> None:
        """Counts a load: ``"ok"`` or ``"failed"``."""
        self._loads.labels(model, result).inc()

    def page(self) -> bytes:
        """Returns what Prometheus reads."""
        return prometheus.generate_latest(self._registry)
