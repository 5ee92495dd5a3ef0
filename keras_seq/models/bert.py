"""The bidirectional Transformer that is trained to fill gaps, and then to label."""

from __future__ import annotations

from typing import Any

from keras_seq.models.gpt import rotary_transformer
from keras_seq.registry import architecture


@architecture("returns_attention")
def bert(
    x: Any,
    *,
    mask: Any = None,
    width: int = 128,
    depth: int = 2,
    heads: int = 4,
    dropout: float = 0.1,
    glu: bool = False,
    max_length: int = 2048,
) -> Any:
    """Transformer blocks in which every step sees every other, with rotary positions.

    Against the paper's: normalised before each half, which trains without a long warm-up, and
    rotary positions, which serve longer texts than were trained on. What is pretrained by the task
    ``language_model`` with the objective ``masked`` goes into other tasks with ``--init RUN``.
    The layers ``attention_block_{i}`` return the weights, (B, heads, T, T), as second output.

    Args:
        x: Features, (B, T, D); projected where D is not `width`.
        mask: (B, T) bool, True at real steps, or None.
        width: Features of each step; divisible by twice `heads`.
        depth: Number of blocks.
        heads: Attention heads.
        dropout: On the input, the weights, hidden units and each half of a block, 0 to below 1.
        glu: Whether the feed-forward layers are gated (SwiGLU).
        max_length: Longest sequence where T is left open, in steps.

    Returns:
        (B, T, width), zeros at masked steps.

    Raises:
        UserError: If an option is out of range, or `width` does not fit `heads`.

    Example:
        >>> import keras
        >>> x = keras.Input((48, 3))
        >>> keras.Model(x, bert(x, width=8, depth=1, heads=2)).output.shape
        (None, 48, 8)

    Reference:
        Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers for Language
        Understanding; Su et al. 2021, RoFormer.
    """
    return rotary_transformer(
        x,
        mask=mask,
        width=width,
        depth=depth,
        heads=heads,
        dropout=dropout,
        glu=glu,
        max_length=max_length,
        causal=False,
    )
