"""Layers on token ids."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Shape = tuple[Any, ...]


@keras.saving.register_keras_serializable(package="keras_seq")
class TokenDropout(keras.layers.Layer):
    """Replaces tokens by the unknown token while training, so that no single one is relied upon.

    Args:
        rate: Share of the tokens, 0 to below 1.
        unknown: The id that stands in for them. Default 1. Padding (0) stays.
        seed: Of the choice; None draws one.
        **kwargs: As for every Keras layer.

    Call arguments:
        tokens: (B, T) int32.
        training: Whether tokens are replaced.

    Returns:
        (B, T) int32.

    Raises:
        ValueError: If the rate is not a share.

    Example:
        >>> import numpy as np
        >>> layer = TokenDropout(0.5)
        >>> np.asarray(layer(np.array([[5, 6, 0]], "int32"))).tolist()
        [[5, 6, 0]]

    Reference:
        Iyyer et al. 2015, Deep Unordered Composition Rivals Syntactic Methods for Text
        Classification.
    """

    def __init__(
        self, rate: float, *, unknown: int = 1, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate is {rate}: give 0 to below 1")
        self.rate = rate
        self.unknown = unknown
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    def call(self, tokens: Any, training: bool | None = None) -> Any:
        """Replaces a random share of the real tokens."""
        if not training or self.rate == 0:
            return tokens
        chance = keras.random.uniform(ops.shape(tokens), seed=self.seed_generator)
        replaced = ops.logical_and(chance < self.rate, ops.not_equal(tokens, 0))
        return ops.where(replaced, ops.cast(self.unknown, tokens.dtype), tokens)

    def compute_output_spec(self, tokens: Any, training: bool | None = None) -> Any:
        """Returns the shape and the integer type of the input."""
        return keras.KerasTensor(tokens.shape, dtype=tokens.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "rate": self.rate,
            "unknown": self.unknown,
            "seed": self.seed,
        }
