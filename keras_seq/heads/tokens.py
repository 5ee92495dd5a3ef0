"""Token ids to feature vectors: the entrance that all heads for text share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_seq.layers import TokenDropout

if TYPE_CHECKING:
    from keras_seq.models import Architecture


@dataclass(frozen=True)
class Tokens:
    """Embeds token ids, and says which of them are real.

    Width and dropouts are those of the embedding: an architecture that reads ids has its own.

    Args:
        vocabulary: How many ids there are; 0 is padding, 1 the unknown token.
        width: Features of an embedded token.
        dropout: On the embedded features, 0 to below 1.
        token_dropout: Share of tokens that training replaces by the unknown token.

    Example:
        >>> import keras_seq
        >>> head = keras_seq.heads.Label(classes=2, tokens=Tokens(vocabulary=100, width=8))
        >>> model = keras_seq.build("gru", inputs={"tokens": (None,)}, head=head, width=8)
        >>> model.output["logits"].shape
        (None, 2)

    Reference:
        Token dropout: Iyyer et al. 2015, Deep Unordered Composition Rivals Syntactic Methods.
    """

    vocabulary: int
    width: int = 128
    dropout: float = 0.0
    token_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.vocabulary < 2:
            raise ValueError(f"vocabulary is {self.vocabulary}: padding and unknown make 2")
        if self.width < 1:
            raise ValueError(f"width is {self.width}: give at least 1")

    def features(
        self, architecture: Architecture, inputs: dict[str, Any], embedding: Any = None
    ) -> tuple[Any, Any]:
        """Returns what an architecture reads, and the mask of real tokens.

        Args:
            architecture: One that reads ids (`vocabulary` is in its signature) gets the ids.
            inputs: Has ``tokens``, (B, T) int32.
            embedding: The layer to embed with; None makes one.

        Returns:
            Features (B, T, width) or ids (B, T), and the mask (B, T), True at real tokens.
        """
        tokens = inputs["tokens"]
        mask = ops.not_equal(tokens, 0)
        if architecture.reads_tokens:
            # It has dropout of its own: unknown tokens in between would break up its n-grams.
            return tokens, mask
        if self.token_dropout:
            tokens = TokenDropout(self.token_dropout, name="token_dropout")(tokens)
        if embedding is None:
            embedding = keras.layers.Embedding(
                self.vocabulary,
                self.width,
                embeddings_initializer=keras.initializers.RandomUniform(-0.05, 0.05),
                name="embedding",
            )
        x = embedding(tokens)  # (B, T, D)
        if self.dropout:
            x = keras.layers.SpatialDropout1D(self.dropout, name="embedding_dropout")(x)
        return x, mask
