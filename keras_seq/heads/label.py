"""The label head: one label for each sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_seq.errors import UserError
from keras_seq.heads.tokens import Tokens
from keras_seq.layers import ClassToken, Dropout, Pooling
from keras_seq.layers.pooling import METHODS

if TYPE_CHECKING:
    from keras_seq.models import Architecture

CLASS_TOKEN = "class_token"
START = 2  # the id that opens a text: what an architecture that reads ids has for a class token


@dataclass(frozen=True)
class Label:
    """Labels for each sequence: class scores (logits) from the pooled states.

    Inputs: ``tokens`` (B, T) ids; or ``features`` or ``series`` (B, T, D) and, if any, ``mask``
    (B, T).
    Output: ``logits`` (B, classes).

    An architecture that is tagged ``logits`` gives the class scores itself, and one that gives a
    vector is not pooled.

    Args:
        classes: How many labels there are.
        pooling: One of ``"last"``, ``"first"``, ``"mean"``, ``"max"`` and ``"attention"``, or
            several joined by ``+``, as in ``"mean+max"``; or ``"class_token"``, a learned step in
            front of the sequence whose state is taken, which causal architectures cannot use.
            None takes ``mean+max`` of recurrent architectures, ``last`` of other causal ones, and
            ``mean`` of the rest.
        dropout: On the pooled features.
        tokens: How ids are embedded, where the input is ``tokens``.
        exclusive: Whether a sequence has exactly one label (softmax), not any number (sigmoids).

    Example:
        >>> import keras_seq
        >>> head = keras_seq.heads.Label(classes=3)
        >>> keras_seq.build("gru", inputs={"features": (None, 5)}, head=head).output["logits"].shape
        (None, 3)
    """

    classes: int
    pooling: str | None = None
    dropout: float = 0.0
    tokens: Tokens | None = None
    exclusive: bool = True

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise ValueError(f"classes is {self.classes}: give at least 1")
        if self.pooling is None or self.pooling == CLASS_TOKEN:
            return
        parts = self.pooling.split("+")
        if not set(parts) <= set(METHODS) or len(set(parts)) < len(parts):
            raise UserError(
                f"pooling is {self.pooling!r}: give one of {', '.join(METHODS)} or several joined "
                f"by +, or {CLASS_TOKEN}"
            )

    def connect(self, architecture: Architecture, inputs: dict[str, Any]) -> dict[str, Any]:
        """Connects the inputs, the architecture and the class scores.

        Args:
            architecture: The architecture with its options; no forecaster.
            inputs: ``tokens``; or ``features`` or ``series``, and ``mask`` if any.

        Returns:
            ``{"logits": tensor}``.

        Raises:
            ValueError: If the architecture is a forecaster, or ids come and `tokens` is not set.
            UserError: If the architecture cannot be pooled as asked.
        """
        if architecture.forecaster:
            raise ValueError(
                f"{architecture.name} is a forecaster: it maps a lookback to a horizon and has no "
                "label; choose a sequence architecture (keras-seq list)"
            )
        class_token = self.pooling == CLASS_TOKEN and "vector" not in architecture.tags
        if class_token and architecture.causal:
            raise UserError(
                f"{architecture.name} is causal: a class token in front of the sequence would see "
                "nothing of it; take another pooling, or options that make it see both ways"
            )
        x, mask = self._features(architecture, inputs, class_token)
        h = architecture(
            x,
            mask=mask,
            vocabulary=self.tokens.vocabulary if self.tokens else None,
            classes=self.classes,
            exclusive=self.exclusive,
        )
        if "logits" in architecture.tags:
            return {"logits": keras.layers.Identity(name="logits")(h)}
        if len(h.shape) == 3:
            h = self._pool(architecture, h, mask)
        if self.dropout:
            h = Dropout(self.dropout, name="head_dropout")(h)
        return {"logits": keras.layers.Dense(self.classes, name="logits")(h)}

    def _features(
        self, architecture: Architecture, inputs: dict[str, Any], class_token: bool
    ) -> tuple[Any, Any]:
        """What the architecture reads, and its mask, with a class token in front if asked."""
        if "tokens" not in inputs:
            x = inputs["features"] if "features" in inputs else inputs["series"]
            mask = inputs.get("mask")
        else:
            if self.tokens is None:
                raise ValueError("the input is token ids: give Label(tokens=Tokens(vocabulary))")
            if class_token and architecture.reads_tokens:
                tokens = inputs["tokens"]
                first = ops.full_like(tokens[:, :1], START)
                inputs = {**inputs, "tokens": ops.concatenate([first, tokens], axis=1)}
            x, mask = self.tokens.features(architecture, inputs)
        if not class_token or architecture.reads_tokens:
            return x, mask
        layer = ClassToken(name=CLASS_TOKEN)
        return (layer(x), None) if mask is None else layer(x, mask=mask)

    def _pool(self, architecture: Architecture, h: Any, mask: Any) -> Any:
        pooling = self.pooling
        if pooling is None:
            if "recurrent" in architecture.tags:
                pooling = "mean+max"
            else:
                pooling = "last" if architecture.causal else "mean"
        elif pooling == CLASS_TOKEN:
            pooling = "first"
        parts = pooling.split("+")
        if len(parts) == 1:
            return Pooling(pooling, name="pooling")(h, mask=mask)
        found = [Pooling(part, name=f"pooling_{part}")(h, mask=mask) for part in parts]
        return keras.layers.Concatenate(name="pooled")(found)
