"""Heads of language models: scores of the next token, or of tokens that were hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_seq.errors import UserError
from keras_seq.heads.tokens import Tokens
from keras_seq.layers import Dropout, SampledLikelihood

if TYPE_CHECKING:
    from keras_seq.models import Architecture

# What the output layer starts with: scores near 0, which is near the uniform distribution.
_SPREAD = 0.02


@dataclass(frozen=True)
class NextToken:
    """The next token at every step: one score for each token of the vocabulary.

    Input: ``tokens`` (B, T) ids. Output: ``logits`` (B, T, vocabulary); those of step t are about
    token t + 1.

    Args:
        tokens: How ids are embedded.
        tied: Whether the output layer is the embedding, turned round.
        dropout: On the states that the output layer reads.
        variational: Whether that dropout is the same at all steps of a sequence.

    Example:
        >>> import keras_seq
        >>> head = NextToken(Tokens(vocabulary=100, width=8))
        >>> model = keras_seq.build("gru", inputs={"tokens": (None,)}, head=head, width=16)
        >>> model.output["logits"].shape
        (None, None, 100)

    Reference:
        Press and Wolf 2017, Using the Output Embedding to Improve Language Models; Gal and
        Ghahramani 2016, A Theoretically Grounded Application of Dropout in Recurrent Neural
        Networks.
    """

    tokens: Tokens
    tied: bool = True
    dropout: float = 0.0
    variational: bool = False

    def connect(self, architecture: Architecture, inputs: dict[str, Any]) -> dict[str, Any]:
        """Connects the ids, the architecture and the scores.

        Args:
            architecture: A causal architecture that returns a state for each step.
            inputs: ``tokens``, (B, T) int32.

        Returns:
            ``{"logits": tensor}``.

        Raises:
            UserError: If the architecture is not causal.
        """
        if "causal" not in architecture.tags and not architecture.options.get("causal"):
            raise UserError(
                f"{architecture.name} sees what comes after a step, and a language model must "
                "not: take a causal one such as gpt, lstm, gru, tcn"
            )
        h, embedding = _states(self.tokens, architecture, inputs)
        width = self.tokens.width
        if self.tied and h.shape[-1] != width:
            h = keras.layers.Dense(width, name="output_projection")(h)
        if self.dropout:
            kind = keras.layers.SpatialDropout1D if self.variational else Dropout
            h = kind(self.dropout, name="head_dropout")(h)
        if self.tied:
            logits = keras.layers.Identity(name="logits")(embedding(h, reverse=True))
        else:
            start = keras.initializers.RandomNormal(stddev=_SPREAD)
            logits = keras.layers.Dense(
                self.tokens.vocabulary, kernel_initializer=start, name="logits"
            )(h)
        return {"logits": logits}


@dataclass(frozen=True)
class MaskedToken:
    """The tokens that were hidden: one score for each token of the vocabulary, there alone.

    Inputs: ``tokens`` (B, T) ids, some of them hidden; ``places`` (B, M), the steps to predict;
    ``targets`` (B, M), the ids that stood there, 0 for none. Outputs: ``log_probability`` (B, M) of
    the targets, which training maximises, there over a sample of the vocabulary; and ``logits``
    (B, M, vocabulary). The output layer, which costs more than the rest of a small network, is
    computed at the places only, and in training not at all.

    Args:
        tokens: How ids are embedded.
        dropout: On the states that the output layer reads.

    Example:
        >>> import keras, keras_seq
        >>> head = MaskedToken(Tokens(vocabulary=100, width=8))
        >>> inputs = {"tokens": (None,), **MaskedToken.inputs(places=3)}
        >>> model = keras_seq.build("bert", inputs=inputs, head=head, width=8)
        >>> {name: tensor.shape for name, tensor in model.output.items()}
        {'log_probability': (None, 3), 'logits': (None, 3, 100)}

    Reference:
        Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers for Language
        Understanding.
    """

    tokens: Tokens
    dropout: float = 0.0

    def connect(self, architecture: Architecture, inputs: dict[str, Any]) -> dict[str, Any]:
        """Connects the ids, the architecture, the places and the scores.

        Args:
            architecture: A sequence architecture that returns a state for each step.
            inputs: ``tokens`` (B, T), ``places`` and ``targets`` (B, M), int32.

        Returns:
            ``{"log_probability": tensor, "logits": tensor}``.
        """
        h, embedding = _states(self.tokens, architecture, inputs)
        h = ops.take_along_axis(h, inputs["places"][:, :, None], axis=1)  # (B, M, W)
        h = keras.layers.Dense(self.tokens.width, activation="silu", name="masked_transform")(h)
        h = keras.layers.LayerNormalization(name="masked_norm")(h)
        if self.dropout:
            h = Dropout(self.dropout, name="head_dropout")(h)
        logits = keras.layers.Identity(name="logits")(embedding(h, reverse=True))
        candidates = embedding(inputs["targets"])
        likelihood = SampledLikelihood(self.tokens.vocabulary, name="log_probability")
        found = likelihood(h, candidates, inputs["targets"], logits)
        return {"log_probability": found, "logits": logits}

    @staticmethod
    def inputs(places: int | None = None) -> dict[str, Any]:
        """Returns the inputs beside the tokens.

        Args:
            places: M, or None where it is open.
        """
        return {n: keras.Input((places,), name=n, dtype="int32") for n in ("places", "targets")}


def _states(tokens: Tokens, architecture: Architecture, inputs: dict[str, Any]) -> Any:
    """The states of every step, and the embedding layer."""
    if architecture.reads_tokens or architecture.forecaster:
        raise UserError(
            f"{architecture.name} gives no state for each step, which a language model needs: "
            "take gpt, bert, lstm, gru, tcn or another sequence architecture"
        )
    embedding = keras.layers.ReversibleEmbedding(
        tokens.vocabulary,
        tokens.width,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=_SPREAD),
        name="embedding",
    )
    x, mask = tokens.features(architecture, inputs, embedding=embedding)
    h = architecture(x, mask=mask)  # (B, T, W)
    if len(h.shape) != 3:
        raise UserError(
            f"{architecture.name} gives one vector for a whole sequence, and a language model "
            "needs one for each step: take gpt, lstm, gru, tcn or another sequence architecture"
        )
    return h, embedding
