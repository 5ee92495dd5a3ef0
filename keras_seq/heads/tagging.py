"""The tagging head: one label for each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_seq.errors import UserError
from keras_seq.heads.tokens import Tokens
from keras_seq.layers import Dropout
from keras_seq.layers.crf import CRFPotentials

if TYPE_CHECKING:
    from keras_seq.models import Architecture


@dataclass(frozen=True)
class Characters:
    """Features of a word from its characters: convolutions, and the largest value of each.

    Args:
        vocabulary: How many character ids there are; 0 is padding.
        width: Features of a word.
        embedding: Features of a character.
        kernel: Characters that a feature sees at once.
        dropout: On the embedded characters, 0 to below 1.

    Example:
        >>> x = Characters(vocabulary=40, width=8).features(keras.Input((None, 12), dtype="int32"))
        >>> x.shape
        (None, None, 8)

    Reference:
        Ma and Hovy 2016, End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF; dos Santos
        and Zadrozny 2014.
    """

    vocabulary: int
    width: int = 50
    embedding: int = 32
    kernel: int = 3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "embedding", "kernel"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")

    def features(self, characters: Any) -> Any:
        """Returns the features of each word.

        Args:
            characters: (B, T, C) ids, 0 behind the end of a word.

        Returns:
            (B, T, width); zeros for a word without characters.
        """
        real = ops.cast(ops.not_equal(characters, 0), keras.config.floatx())[..., None]
        x = keras.layers.Embedding(
            self.vocabulary,
            self.embedding,
            embeddings_initializer=keras.initializers.RandomUniform(-0.1, 0.1),
            name="character_embedding",
        )(characters)  # (B, T, C, E)
        if self.dropout:
            x = Dropout(self.dropout, name="character_dropout")(x)
        x = x * ops.cast(real, x.dtype)
        x = keras.layers.Conv2D(
            self.width, (1, self.kernel), padding="same", activation="relu", name="character_cnn"
        )(x)
        # Nothing is below 0 here, so that a padding step set to 0 never wins.
        return ops.max(x * ops.cast(real, x.dtype), axis=2)


@dataclass(frozen=True)
class TokenLabels:
    """Labels for each token: class scores at every step, on their own or as a sequence (CRF).

    Inputs: ``tokens`` (B, T) ids; and, with `characters`, ``characters`` (B, T, C) ids.
    Output: ``logits`` (B, T, classes); or with `crf` ``potentials`` (B, T, classes, classes), see
    `keras_seq.layers.CRFPotentials`.

    Args:
        classes: How many labels there are.
        tokens: How ids are embedded.
        characters: How the characters of a word are read; None: not at all.
        dropout: On the states that the scores are made from.
        crf: Whether neighbouring labels get a score of their own.

    Example:
        >>> import keras_seq
        >>> head = TokenLabels(classes=17, tokens=Tokens(vocabulary=100, width=8))
        >>> model = keras_seq.build("gru", inputs={"tokens": (None,)}, head=head, width=8)
        >>> model.output["logits"].shape
        (None, None, 17)
    """

    classes: int
    tokens: Tokens
    characters: Characters | None = None
    dropout: float = 0.0
    crf: bool = False

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise ValueError(f"classes is {self.classes}: give at least 1")

    def connect(self, architecture: Architecture, inputs: dict[str, Any]) -> dict[str, Any]:
        """Connects the inputs, the architecture and the scores of the labels.

        Args:
            architecture: The architecture with its options.
            inputs: ``tokens`` and, if the head reads them, ``characters``.

        Returns:
            ``{"logits": tensor}`` or ``{"potentials": tensor}``.

        Raises:
            UserError: If the architecture gives no state for each step.
        """
        if architecture.forecaster or architecture.reads_tokens:
            raise UserError(_no_steps(architecture))
        x, mask = self.tokens.features(architecture, inputs)
        if self.characters is not None:
            spelt = self.characters.features(inputs["characters"])
            if self.tokens.dropout:
                spelt = keras.layers.SpatialDropout1D(self.tokens.dropout, name="spelling_dropout")(
                    spelt
                )
            x = keras.layers.Concatenate(name="words")([x, spelt])
            # The two start with sizes of their own, both small beside what architectures add to
            # them (positions, states).
            x = keras.layers.LayerNormalization(name="words_norm")(x)
        h = architecture(x, mask=mask)  # (B, T, W)
        if len(h.shape) != 3:
            raise UserError(_no_steps(architecture))
        if self.dropout:
            h = Dropout(self.dropout, name="head_dropout")(h)
        if not self.crf:
            return {"logits": keras.layers.Dense(self.classes, name="logits")(h)}
        h = keras.layers.Dense(self.classes, name="scores")(h)
        return {"potentials": CRFPotentials(name="potentials")(h)}


def _no_steps(architecture: Architecture) -> str:
    return (
        f"{architecture.name} gives no state for each token, which tagging needs: take lstm, gru, "
        "tcn, transformer or another sequence architecture"
    )
