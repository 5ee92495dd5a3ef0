"""The recurrent encoder-decoder with attention: every step of the target looks at the source."""

from __future__ import annotations

from typing import Any

import keras

from keras_seq.errors import UserError
from keras_seq.layers import AlignmentKeys, AttentionDecoder, Dropout, EncoderOutput, Pooling
from keras_seq.layers.recurrent import CELLS, recurrent_stack
from keras_seq.models._checks import check_choice, check_shares, check_sizes
from keras_seq.registry import architecture


@architecture("encoder_decoder", "returns_attention")
def seq2seq_attention(
    source: Any,
    *,
    target: Any,
    mask: Any = None,
    target_mask: Any = None,
    width: int = 256,
    depth: int = 1,
    dropout: float = 0.2,
    input_dropout: float = 0.0,
    cell: str = "gru",
    score: str = "bahdanau",
    order: str | None = None,
    encoder_width: int = 0,
    bidirectional: bool = True,
    input_feeding: bool = True,
    coverage: bool = False,
) -> Any:
    """A recurrent encoder, and a recurrent decoder that attends to all of its states.

    The layer ``alignment`` returns the weights, (B, T, S), as second output.

    Args:
        source: Features, (B, S, D).
        target: Features of the target so far, (B, T, D).
        mask: (B, S) bool, True at real steps of the source, or None.
        target_mask: (B, T) bool; it makes no difference, padding comes last.
        width: Features of each state of the decoder, and of the encoder (both ways together).
        depth: Layers of the encoder, and as many of the decoder.
        dropout: On what the encoder's and the decoder's layers give, 0 to below 1.
        input_dropout: On the features that come in, of the source and of the target.
        cell: ``"gru"``, ``"lstm"`` or ``"rnn"``.
        score: ``"bahdanau"``, ``"dot"``, ``"scaled_dot"``, ``"luong_general"``,
            ``"luong_concat"`` or ``"location"``; see `keras_seq.layers.Alignment`.
        order: When a step attends: ``"bahdanau"``, ``"luong"`` or ``"conditional"``, see
            `keras_seq.layers.AttentionDecoder`; None: as the score's inventor had it.
        encoder_width: Features of each state of the encoder, both ways together; 0: as `width`.
        bidirectional: Whether the encoder reads both ways.
        input_feeding: Whether, in Luong's order, what a step found goes into the next one.
        coverage: Whether the score knows what was attended to before.

    Returns:
        (B, T, width), the decoder's states.

    Raises:
        UserError: If an option is out of range.

    Example:
        >>> source, target = keras.Input((None, 3)), keras.Input((None, 3))
        >>> model = keras.Model([source, target], seq2seq_attention(source, target=target, width=8))
        >>> output, weights = model.get_layer("alignment").output
        >>> output.shape, weights.shape
        ((None, None, 8), (None, None, None))

    Reference:
        Bahdanau, Cho and Bengio 2015, Neural Machine Translation by Jointly Learning to Align and
        Translate; Luong, Pham and Manning 2015, Effective Approaches to Attention-based Neural
        Machine Translation.
    """
    check_sizes(width=width, depth=depth, dropout=dropout)
    if encoder_width < 0:
        raise UserError(f"encoder_width is {encoder_width}: give at least 1, or 0 for the width")
    if encoder_width not in (0, width) and score in ("dot", "location"):
        raise UserError(
            f"encoder_width is {encoder_width} and width {width}: the score {score!r} compares "
            "states as they are and needs one width; leave encoder_width out, or take another score"
        )
    check_shares(input_dropout=input_dropout)
    check_choice("cell", cell, tuple(CELLS))
    if input_dropout:
        source = Dropout(input_dropout, name="source_input_dropout")(source)
        target = Dropout(input_dropout, name="target_input_dropout")(target)
    memory = recurrent_stack(
        source,
        cell=cell,
        mask=mask,
        width=encoder_width or width,
        depth=depth,
        dropout=dropout,
        bidirectional=bidirectional,
    )
    mean = Pooling("mean", name="source_mean")(memory, mask=mask)  # (B, W)
    first = []
    for i in range(depth):
        for part in ("hidden", "cell") if cell == "lstm" else ("hidden",):
            h = keras.layers.Dense(width, activation="tanh", name=f"bridge_{part}_{i}")(mean)
            first.append(EncoderOutput(name=f"start_{part}_{i}")(h))
    try:
        # Dot products need keys as wide as the decoder's states.
        keys = AlignmentKeys(width, score=score, name="source_keys")(memory, mask=mask)
        decoder = AttentionDecoder(
            width,
            cell=cell,
            score=score,
            order=order,
            depth=depth,
            dropout=dropout,
            input_feeding=input_feeding,
            coverage=coverage,
            name="alignment",
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    memory = EncoderOutput(name="memory")(memory)
    if mask is not None:
        mask = EncoderOutput(name="memory_mask")(mask)
    y, _ = decoder(target, keys, memory, mask=mask, initial_state=first)
    return y
