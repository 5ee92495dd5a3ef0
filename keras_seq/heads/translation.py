"""The head of an encoder-decoder: a source in, the next token of the target out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_seq.errors import UserError
from keras_seq.heads.tokens import Tokens
from keras_seq.layers import Dropout

if TYPE_CHECKING:
    from keras_seq.models import Architecture

SHARED = ("none", "target", "all")


@dataclass(frozen=True)
class Translation:
    """The next token of the target at every step, given the source and the target so far.

    Inputs: ``source`` (B, S) ids; ``tokens`` (B, T) ids of the target, which begin with a start
    token. Output: ``logits`` (B, T, vocabulary of the target); those of step t are about token
    t + 1.

    Args:
        source: How ids of the source are embedded.
        target: How ids of the target are embedded.
        shared: Which embeddings are one: ``"none"``; ``"target"``, the target's and the output
            layer's; ``"all"``, the source's too, for one vocabulary over both languages.
        scale: Whether embeddings are multiplied by the square root of their width, as the 2017
            Transformer does: they start small, for the output layer's sake.
        dropout: On the states that the output layer reads.

    Raises:
        UserError: If `shared` is unknown or the vocabularies of ``"all"`` are not of one size.

    Example:
        >>> import keras_seq
        >>> head = Translation(Tokens(100, width=8), Tokens(100, width=8), shared="all")
        >>> head.target.vocabulary
        100

    Reference:
        Press and Wolf 2017, Using the Output Embedding to Improve Language Models.
    """

    source: Tokens
    target: Tokens
    shared: str = "target"
    scale: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.shared not in SHARED:
            raise UserError(f"shared is {self.shared!r}: give one of {', '.join(SHARED)}")
        sizes = [(t.vocabulary, t.width) for t in (self.source, self.target)]
        if self.shared == "all" and sizes[0] != sizes[1]:
            raise UserError(
                f"source and target share no embedding: they have {sizes[0][0]} ids of width "
                f"{sizes[0][1]} and {sizes[1][0]} of {sizes[1][1]}; take one joint vocabulary, or "
                "shared='target'"
            )

    def connect(self, architecture: Architecture, inputs: dict[str, Any]) -> dict[str, Any]:
        """Connects the ids, the architecture and the scores.

        Args:
            architecture: An encoder-decoder.
            inputs: ``source`` (B, S) and ``tokens`` (B, T), int32.

        Returns:
            ``{"logits": tensor}``.

        Raises:
            UserError: If the architecture is no encoder-decoder.
        """
        if not architecture.encoder_decoder:
            raise UserError(
                f"{architecture.name} has no decoder: a translation needs an encoder-decoder such "
                "as seq2seq, seq2seq_attention or seq2seq_transformer"
            )
        embedding = _embedding(self.target, "embedding")
        of_source = embedding
        if self.shared != "all":
            of_source = _embedding(self.source, "source_embedding")
        source, mask = self._embed(self.source, of_source, inputs["source"], "source")
        target, target_mask = self._embed(self.target, embedding, inputs["tokens"], "target")
        h = architecture(source, mask=mask, target=target, target_mask=target_mask)  # (B, T, W)
        if self.dropout:
            h = Dropout(self.dropout, name="head_dropout")(h)
        if self.shared == "none":
            return {"logits": keras.layers.Dense(self.target.vocabulary, name="logits")(h)}
        if h.shape[-1] != self.target.width:
            h = keras.layers.Dense(self.target.width, name="output_projection")(h)
        return {"logits": keras.layers.Identity(name="logits")(embedding(h, reverse=True))}

    def _embed(self, tokens: Tokens, embedding: Any, ids: Any, name: str) -> tuple[Any, Any]:
        """Features (B, T, width) and the mask (B, T) of ids."""
        x = embedding(ids)
        if self.scale:
            x = keras.layers.Rescaling(float(tokens.width) ** 0.5, name=f"{name}_scale")(x)
        if tokens.dropout:
            x = Dropout(tokens.dropout, name=f"{name}_dropout")(x)
        return x, ops.not_equal(ids, 0)


def check_encoder_decoder(model: Any, what: str) -> None:
    """Refuses a model that does not have the inputs which this head gives one.

    Args:
        model: A functional model.
        what: Who needs them, for the message.

    Raises:
        UserError: If they are not among its inputs.

    Example:
        >>> import keras
        >>> check_encoder_decoder(keras.Sequential([keras.Input((3,))]), "a search")
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: a search needs an encoder-decoder with the inputs 'source' ...
    """
    given = getattr(model, "input", None)
    if not isinstance(given, dict) or not {"source", "tokens"} <= set(given):
        raise UserError(
            f"{what} needs an encoder-decoder with the inputs 'source' and 'tokens', as the head "
            "keras_seq.heads.Translation makes it"
        )


def _embedding(tokens: Tokens, name: str) -> keras.layers.ReversibleEmbedding:
    return keras.layers.ReversibleEmbedding(
        tokens.vocabulary,
        tokens.width,
        # With the square root of the width this gives features of about unit spread.
        embeddings_initializer=keras.initializers.RandomNormal(stddev=tokens.width**-0.5),
        name=name,
    )
