"""The encoder-decoder without attention: a source becomes one vector, the vector a target."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_seq.layers import ApplyMask, Dropout, EncoderOutput
from keras_seq.layers.recurrent import CELLS
from keras_seq.models._checks import check_choice, check_sizes
from keras_seq.registry import architecture


@architecture("encoder_decoder")
def seq2seq(
    source: Any,
    *,
    target: Any,
    mask: Any = None,
    target_mask: Any = None,
    width: int = 256,
    depth: int = 1,
    dropout: float = 0.2,
    cell: str = "lstm",
    reverse: bool = True,
) -> Any:
    """Recurrent layers read the source; others begin with their last states and write the target.

    All that the decoder knows of a source are these states, of one size for every length: what
    attention was invented against.

    Args:
        source: Features, (B, S, D).
        target: Features of the target so far, (B, T, D).
        mask: (B, S) bool, True at real steps of the source, or None.
        target_mask: (B, T) bool; it makes no difference, padding comes last.
        width: Features of each state.
        depth: Layers of the encoder, and as many of the decoder.
        dropout: Before each layer and on the output, 0 to below 1.
        cell: ``"lstm"``, ``"gru"`` or ``"rnn"``.
        reverse: Whether the source is read from its end, which brings its beginning near to that
            of the target.

    Returns:
        (B, T, width), the decoder's states.

    Raises:
        UserError: If an option is out of range.

    Example:
        >>> import keras
        >>> source, target = keras.Input((None, 3)), keras.Input((None, 3))
        >>> seq2seq(source, target=target, width=8).shape
        (None, None, 8)

    Reference:
        Sutskever, Vinyals and Le 2014, Sequence to Sequence Learning with Neural Networks; Cho et
        al. 2014, Learning Phrase Representations using RNN Encoder-Decoder.
    """
    check_sizes(width=width, depth=depth, dropout=dropout)
    check_choice("cell", cell, tuple(CELLS))
    x = source
    if mask is not None:
        x = ApplyMask(name="apply_mask")(x, mask=mask)
    if reverse:
        # Padding comes first now; the layers pass over it.
        x = ops.flip(x, axis=1)
        mask = None if mask is None else ops.flip(mask, axis=1)
    options = {"return_sequences": True, "return_state": True}
    states = []
    for i in range(depth):
        if dropout:
            x = Dropout(dropout, name=f"encoder_dropout_{i}")(x)
        x, *last = CELLS[cell](width, name=f"encoder_{cell}_{i}", **options)(x, mask=mask)
        parts = zip(("hidden", "cell"), last, strict=False)
        states.append([EncoderOutput(name=f"start_{part}_{i}")(h) for part, h in parts])
    y = target
    for i in range(depth):
        if dropout:
            y = Dropout(dropout, name=f"decoder_dropout_{i}")(y)
        layer = CELLS[cell](width, return_sequences=True, name=f"decoder_{cell}_{i}")
        y = layer(y, initial_state=states[i])
    if dropout:
        y = Dropout(dropout, name="output_dropout")(y)
    return y
