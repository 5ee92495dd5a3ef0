"""A recurrent network that looks back over its own states."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.errors import UserError
from keras_seq.layers import AdditiveAttention, ApplyMask, Pooling, recurrent_stack
from keras_seq.layers.recurrent import CELLS
from keras_seq.models._checks import check_choice, check_sizes
from keras_seq.registry import architecture


@architecture("recurrent", "returns_attention")
def attention_rnn(
    x: Any,
    *,
    mask: Any = None,
    width: int = 64,
    depth: int = 1,
    dropout: float = 0.0,
    bidirectional: bool = False,
    residual: bool = False,
    layer_norm: bool = False,
    cell: str = "lstm",
    causal: bool = False,
) -> Any:
    """A recurrent trunk with additive attention over its states.

    The last real state asks once for the whole sequence, and the answer is combined with every
    state: output = tanh(state A + answer B + b). With `causal` every state asks for itself and
    sees only the states before it and its own; that holds T x T x width numbers at once.

    The layer ``attention`` returns the weights: (B, 1, T), with `causal` (B, T, T).

    Args:
        x: Features, (B, T, D).
        mask: (B, T) bool, True at real steps, or None.
        width: Features of a state.
        depth: Recurrent layers on top of each other.
        dropout: After each recurrent layer, 0 to below 1.
        bidirectional: Whether half of each layer reads from the end.
        residual: Whether each recurrent layer adds its input.
        layer_norm: Whether each recurrent layer's states are normalised.
        cell: ``"lstm"``, ``"gru"`` or ``"rnn"``.
        causal: Whether step t sees only steps up to t.

    Returns:
        (B, T, width), zeros at masked steps.

    Raises:
        UserError: If an option is out of range, or `causal` is asked for with `bidirectional`.

    Example:
        >>> x = keras.Input((48, 3))
        >>> model = keras.Model(x, attention_rnn(x, width=8))
        >>> output, weights = model.get_layer("attention").output
        >>> weights.shape
        (None, 1, 48)

    Reference:
        Bahdanau, Cho and Bengio 2015, Neural Machine Translation by Jointly Learning to Align and
        Translate; the combination as in Luong, Pham and Manning 2015.
    """
    check_sizes(width=width, depth=depth, dropout=dropout)
    check_choice("cell", cell, tuple(CELLS))
    if causal and bidirectional:
        raise UserError(
            "causal=True and bidirectional=True contradict each other: a bidirectional trunk has "
            "seen the future; leave one of them out"
        )
    states = recurrent_stack(
        x,
        cell=cell,
        mask=mask,
        width=width,
        depth=depth,
        dropout=dropout,
        bidirectional=bidirectional,
        residual=residual,
        layer_norm=layer_norm,
    )
    query = states
    if not causal:
        query = Pooling("last", name="last_state")(states, mask=mask)
        query = keras.layers.Reshape((1, width), name="query")(query)
    answer, _ = AdditiveAttention(width, causal=causal, name="attention")(query, states, mask=mask)
    # Two products instead of one on [state; answer]: the answer need not be repeated T times.
    state_part = keras.layers.Dense(width, name="combine_state")(states)
    answer_part = keras.layers.Dense(width, use_bias=False, name="combine_answer")(answer)
    y = keras.layers.Add(name="combine")([state_part, answer_part])
    y = keras.layers.Activation("tanh", name="attended_states")(y)
    if mask is not None:
        y = ApplyMask(name="zero_attended_padding")(y, mask=mask)
    return y
