"""Training a decoder on what it would have written itself, and not on the true tokens alone."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seq.errors import UserError
from keras_seq.heads.translation import check_encoder_decoder
from keras_seq.preprocessing.device_tokenizer import END, MASK, PADDING, START

# Padding, start, end, mask: none of them stands inside of what a search has written so far.
NEVER = (PADDING, START, END, MASK)


def scheduled_sampling(
    model: keras.Model, share: float, *, never: tuple[int, ...] = NEVER, seed: int | None = None
) -> keras.Model:
    """Makes the form of an encoder-decoder that is trained: some true tokens are its own guesses.

    In use a decoder reads what it wrote, in training what is true: it never learns to go on from a
    mistake. Here it reads twice in training. First the true target, without dropout and without
    gradients: its likeliest token at each step. Then that target again, in which each token but
    the first is, with a probability of `share`, the one that it took for the likeliest there; of
    this the loss is made. Not in training it is the model itself.

    This is the parallel form of the paper's loop, and it fits every architecture: guesses are made
    from true tokens, not from earlier guesses. It costs one pass without gradients more.

    Args:
        model: A functional model from ``source`` (B, S) and ``tokens`` (B, T) to ``logits``
            (B, T, V).
        share: Of the tokens that are replaced, 0 to 1.
        never: Ids that are never put in.
        seed: Of the choice; None draws one.

    Returns:
        A model with the same inputs and outputs that trains the same weights. Search, save and
        export `model`, not this one: loaded from a file, its two readings would be of two models.

    Raises:
        UserError: If the share is out of range or the model is no encoder-decoder.

    Example:
        >>> import keras_seq
        >>> from keras_seq.heads import Tokens, Translation
        >>> head = Translation(Tokens(20, width=8), Tokens(20, width=8))
        >>> inputs = {"source": (None,), "tokens": (None,)}
        >>> model = keras_seq.build("seq2seq", inputs=inputs, head=head, width=8)
        >>> trained = scheduled_sampling(model, 0.25)
        >>> len(trained.trainable_variables) == len(model.trainable_variables)
        True

    Reference:
        Bengio et al. 2015, Scheduled Sampling for Sequence Prediction with Recurrent Neural
        Networks; Mihaylova and Martins 2019, Scheduled Sampling for Transformers (two passes);
        Duckworth et al. 2019, Parallel Scheduled Sampling.
    """
    if not 0 <= share <= 1:
        raise UserError(f"the share of scheduled sampling is {share}: give 0 to 1, such as 0.25")
    check_encoder_decoder(model, "scheduled sampling")
    inputs = {
        name: keras.Input(x.shape[1:], name=name, dtype=x.dtype) for name, x in model.input.items()
    }
    mixed = OwnTokens(model, share, never=never, seed=seed, name="own_tokens")(inputs)
    return keras.Model(inputs, model({**inputs, "tokens": mixed}), name=f"{model.name}_scheduled")


def unscheduled(model: keras.Model) -> keras.Model:
    """Returns the model that `scheduled_sampling` was given; any other model as it is.

    Args:
        model: A model.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> unscheduled(model) is model
        True
    """
    found = [layer for layer in model.layers if isinstance(layer, OwnTokens)]
    return found[0].model if found else model


@keras.saving.register_keras_serializable(package="keras_seq")
class OwnTokens(keras.layers.Layer):
    """Replaces some tokens of a target by a model's own guesses, in training.

    Args:
        model: From ``source`` and ``tokens`` to ``logits``.
        share: Of the tokens that are replaced, 0 to 1.
        never: Ids that are never put in.
        seed: Of the choice; None draws one.
        **kwargs: As for every Keras layer.

    Call arguments:
        inputs: What the model takes, with ``tokens`` (B, T) int32.
        training: Whether tokens are replaced.

    Returns:
        (B, T) int32. The first token and padding (0) stay.
    """

    def __init__(
        self,
        model: keras.Model,
        share: float,
        *,
        never: tuple[int, ...] = NEVER,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.share = share
        self.never = tuple(never)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Guesses, and mixes."""
        tokens = inputs["tokens"]
        if not training or self.share == 0:
            return tokens
        logits = ops.cast(self.model(inputs, training=False)["logits"], "float32")[:, :-1]
        if self.never:
            ids = ops.arange(logits.shape[-1])
            never = ops.any(ops.equal(ids[:, None], ops.convert_to_tensor(self.never)), axis=-1)
            logits = ops.where(never, -1e30, logits)
        guesses = ops.cast(ops.argmax(logits, axis=-1), tokens.dtype)  # of tokens 1 to T - 1
        guesses = ops.concatenate([tokens[:, :1], guesses], axis=1)
        chance = keras.random.uniform(ops.shape(tokens), seed=self.seed_generator)
        replaced = ops.logical_and(chance < self.share, ops.not_equal(tokens, 0))
        return ops.where(replaced, guesses, tokens)

    def compute_output_spec(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Returns the shape and the integer type of the tokens."""
        return keras.KerasTensor(inputs["tokens"].shape, dtype=inputs["tokens"].dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "share": self.share,
            "never": self.never,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> OwnTokens:
        """Makes the layer from its configuration."""
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model})
