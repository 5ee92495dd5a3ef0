"""The forecast head: windows in, many steps ahead out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_seq.layers import (
    CovariateEffect,
    Dropout,
    OrderedQuantiles,
    Pooling,
    ReverseNormalization,
    ReversibleNormalization,
)

if TYPE_CHECKING:
    from keras_seq.models import Architecture


@dataclass(frozen=True)
class Forecast:
    """Direct multi-step forecasts, as points or as quantiles that never cross.

    The series is normalised window by window, and that is taken back at the end (reversible
    instance normalisation). A sequence architecture then sees every channel as a series of its
    own (`channel_independent`), folded into patches of `patch` steps; the head maps its last
    state, or all of them, to the horizon. A forecaster gets the normalised window as it is.
    Known-future covariates act through one learned effect, which is taken off the past and added
    to the future, so they work with every architecture.

    Inputs: ``series`` (B, lookback, C); and, where they are given, ``covariates``
    (B, lookback + horizon, K) and ``time_index`` (B,), the calendar position of the first step.
    Outputs: ``forecast`` (B, horizon, C) and, with quantiles, ``quantiles`` (B, horizon, C, Q).

    Args:
        horizon: Steps to forecast.
        quantiles: Levels between 0 and 1; the median is added, and is the forecast.
        normalize: ``"mean"`` or ``"last"``: what each window is centred on; ``None``: nothing.
        least_variance: Windows that vary less are divided by its root.
        channel_independent: Whether sequence architectures see each channel alone.
        patch: Steps that become one step of a sequence architecture; ``None`` chooses the period
            where at least 4 fit in the lookback, else a 16th of the lookback.
        pooling: ``"last"``, ``"mean"``, ``"max"``, ``"attention"`` or ``"flatten"``; ``None``
            takes ``last`` of causal architectures and ``flatten`` of the others.
        dropout: On the pooled features.
        period: The seasonal period in steps, for architectures that use it.

    Example:
        >>> import keras_seq
        >>> head = keras_seq.heads.Forecast(horizon=4, quantiles=(0.1, 0.9))
        >>> model = keras_seq.build("linear", inputs=(16, 3), head=head)
        >>> model.output["quantiles"].shape
        (None, 4, 3, 3)

    Reference:
        Kim et al. 2022, Reversible Instance Normalization; Nie et al. 2023, A Time Series is
        Worth 64 Words (channel independence, patches).
    """

    horizon: int
    quantiles: tuple[float, ...] = ()
    normalize: str | None = "mean"
    least_variance: float = 1e-5
    channel_independent: bool = True
    patch: int | None = None
    pooling: str | None = None
    dropout: float = 0.0
    period: int | None = None

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}: give at least 1 step")
        if any(not 0 < level < 1 for level in self.quantiles):
            raise ValueError(f"quantiles are {self.quantiles}: each must be between 0 and 1")

    @property
    def levels(self) -> tuple[float, ...]:
        """The quantile levels that come out, ascending, with the median."""
        return tuple(sorted({*self.quantiles, 0.5})) if self.quantiles else ()

    def patch_length(self, lookback: int) -> int:
        """Returns how many steps become one step of a sequence architecture.

        Args:
            lookback: Steps of a window.
        """
        if self.patch is not None:
            return min(self.patch, lookback)
        if self.period and 1 < self.period <= lookback // 4:
            # Whole periods side by side; a long period is cut into equal parts of 8 to 64 steps.
            parts = [n for n in range(1, self.period + 1) if self.period % n == 0]
            fits = [self.period // n for n in parts if 8 <= self.period // n <= 64]
            if fits and lookback // fits[0] >= 4:
                return fits[0]
        return max(1, lookback // 16)

    def connect(self, architecture: Architecture, inputs: dict[str, Any]) -> dict[str, Any]:
        """Connects the inputs, the architecture and the forecasts.

        Args:
            architecture: The architecture with its options.
            inputs: ``series`` and, if any, ``covariates`` and ``time_index``.

        Returns:
            The named outputs.
        """
        x = inputs["series"]  # (B, L, C)
        lookback, channels = x.shape[1], x.shape[2]
        outputs = max(1, len(self.levels))
        if self.normalize:
            x, mean, scale = ReversibleNormalization(
                center=self.normalize, epsilon=self.least_variance, name="normalize"
            )(x)
        future_effect = None
        if "covariates" in inputs:
            effect = CovariateEffect(channels, name="covariate_effect")(inputs["covariates"])
            x = x - effect[:, :lookback]
            future_effect = effect[:, lookback:]  # (B, H, C)
        if architecture.forecaster:
            y = architecture(
                x,
                horizon=self.horizon,
                outputs=outputs,
                period=self.period,
                time_index=inputs.get("time_index"),
            )
        else:
            y = self._sequence(architecture, x, outputs)
        # y: (B, H, C, Q)
        if future_effect is not None:
            y = y + future_effect[..., None]
        if self.levels:
            y = OrderedQuantiles(self.levels, name="ordered_quantiles")(y)
        if self.normalize:
            y = ReverseNormalization(name="denormalize")(y, mean, scale)
        if not self.levels:
            # Not y[..., 0]: the LiteRT converter moves transposes past a slice, to a wrong rank.
            y = keras.layers.Reshape((self.horizon, channels), name="forecast")(y)
            return {"forecast": y}
        middle = y[..., self.levels.index(0.5)]
        return {
            "forecast": keras.layers.Identity(name="forecast")(middle),
            "quantiles": keras.layers.Identity(name="quantiles")(y),
        }

    def _sequence(self, architecture: Architecture, x: Any, outputs: int) -> Any:
        """Runs a sequence or vector architecture on patches and maps its states to the horizon."""
        lookback, channels = x.shape[1], x.shape[2]
        patch = self.patch_length(lookback)
        steps = -(-lookback // patch)
        if missing := steps * patch - lookback:
            # The oldest value is repeated, so that the newest step stays at the end of a patch.
            x = ops.concatenate([ops.repeat(x[:, :1], missing, axis=1), x], axis=1)
        if self.channel_independent:
            # (B, L, C) -> (B, C, L) -> (B * C, N, P)
            x = ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, steps, patch))
            series = 1
        else:
            x = ops.reshape(x, (-1, steps, patch * channels))
            series = channels
        h = architecture(x, period=None)
        if len(h.shape) == 3:
            pooling = self.pooling or ("last" if "causal" in architecture.tags else "flatten")
            if pooling == "flatten":
                h = keras.layers.Flatten(name="flatten")(h)
            else:
                h = Pooling(pooling, name="pooling")(h)
        if self.dropout:
            h = Dropout(self.dropout, name="head_dropout")(h)
        y = keras.layers.Dense(self.horizon * series * outputs, name="horizon")(h)
        if self.channel_independent:
            y = ops.reshape(y, (-1, channels, self.horizon, outputs))
            return ops.transpose(y, (0, 2, 1, 3))
        return ops.reshape(y, (-1, self.horizon, channels, outputs))
