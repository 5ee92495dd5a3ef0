"""Pretrained backbones of KerasHub as architectures: ``hub:PRESET``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_seq.errors import UserError
from keras_seq.layers import Dropout
from keras_seq.models._checks import check_choice, check_sizes
from keras_seq.preprocessing.device_tokenizer import END, SPECIAL, START
from keras_seq.preprocessing.hub_tokenizer import (
    OURS,
    PREFIX,
    hub_tokenizer,
    import_hub,
    load_preset,
    special_ids,
)

TUNING = ("full", "frozen", "lora")
_KNOWN = ("token_ids", "padding_mask", "segment_ids")
_FIRST = len(SPECIAL)


def from_preset(preset: str) -> Callable[..., Any]:
    """Makes an architecture of a pretrained backbone.

    It reads the ids of the preset's own tokenizer (`--tokenizer hub:PRESET`), and gives the states
    of the last layer, one for each token. The start and the end token that it was trained with are
    put around a text inside it, where there are any.

    Options of the architecture: ``tuning`` (``"full"``: all weights are trained; ``"frozen"``: none
    of the backbone; ``"lora"``: additions of low rank to queries and values), ``rank`` (of those
    additions) and ``dropout`` (on what comes out).

    Args:
        preset: A folder that ``save_to_preset`` wrote, or with a network the name of a preset.

    Returns:
        A function on Keras tensors, from ids (B, T) to (B, T, width), with the attributes ``tags``,
        ``tokenizer`` (a function that makes the tokenizer) and ``max_tokens`` (of the longest text
        that it reads; None: of any).

    Raises:
        UserError: If KerasHub is not installed, or there is no such preset of text.

    Reference:
        LoRA: Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models.
    """
    name = PREFIX + preset
    library = import_hub(name)
    empty = load_preset(library.models.Backbone, preset, load_weights=False)
    causal = _is_causal(library, type(empty))
    # What is not trained gives the same features each time.
    still = {"dropout": 0.0} if "dropout" in empty.get_config() else {}
    tokenizer = load_preset(library.tokenizers.Tokenizer, preset)
    longest = empty.get_config().get("max_sequence_length")
    del empty

    def hub(
        x: Any,
        *,
        mask: Any = None,
        vocabulary: int | None = None,
        tuning: str = "full",
        rank: int = 8,
        dropout: float = 0.1,
    ) -> Any:
        check_choice("tuning", tuning, TUNING)
        check_sizes(rank=rank, dropout=dropout)
        chosen = still if tuning == "frozen" else {}
        backbone = load_preset(library.models.Backbone, preset, **chosen)
        if vocabulary is not None and vocabulary != tokenizer.vocabulary_size() + _FIRST:
            raise UserError(
                f"{name} reads the ids of its own tokenizer, and these are {vocabulary} others: "
                f"give --tokenizer {name}"
            )
        unknown = sorted(set(_names(backbone)) - set(_KNOWN))
        if unknown or "token_ids" not in _names(backbone):
            raise UserError(
                f"{name} reads {', '.join(_names(backbone))}, and a text has token ids only: take "
                "an encoder or a decoder of text"
            )
        _leave_out(backbone)
        _tune(backbone, tuning, rank)
        h = _states(backbone, tokenizer, x, mask)
        return Dropout(dropout, name="hub_dropout")(h) if dropout else h

    hub.__name__ = name
    hub.__doc__ = f"The pretrained backbone {preset}."
    hub.tags = frozenset(("pretrained", *(["causal"] if causal else [])))  # type: ignore[attr-defined]
    # A start, an end and a class token take places too.
    hub.max_tokens = int(longest) - 3 if longest else None  # type: ignore[attr-defined]
    hub.tokenizer = lambda **options: hub_tokenizer(preset, **options)  # type: ignore[attr-defined]
    return hub


def _is_causal(library: Any, backbone: type) -> bool:
    """Whether a step of the backbone sees only what is before it: what writes texts does."""
    return any(
        getattr(getattr(library.models, name), "backbone_cls", None) is backbone
        for name in dir(library.models)
        if name.endswith("CausalLM")
    )


def _names(backbone: keras.Model) -> list[str]:
    return list(backbone.input) if isinstance(backbone.input, dict) else ["an unnamed input"]


def _leave_out(backbone: keras.Model) -> None:
    """What does not lead to the states, such as BERT's pooled vector, is not trained."""
    if not isinstance(backbone.output, dict) or "sequence_output" not in backbone.output:
        return
    used = {id(x) for x in keras.Model(backbone.input, backbone.output["sequence_output"]).layers}
    for layer in backbone.layers:
        if id(layer) not in used:
            layer.trainable = False


def _tune(backbone: keras.Model, tuning: str, rank: int) -> None:
    """Says what of the backbone is trained."""
    if tuning == "frozen":
        backbone.trainable = False
    elif tuning == "lora":
        backbone.enable_lora(rank)


def _states(backbone: keras.Model, tokenizer: Any, x: Any, mask: Any) -> Any:
    """(B, T, W): the states of the tokens, in a text with its start and end around it."""
    theirs = special_ids(tokenizer)
    x = ops.cast(x, "int32")
    if mask is None:
        mask = ops.not_equal(x, 0)
    marked = theirs[START] != theirs[0] or theirs[END] != theirs[0]
    if marked:
        real = ops.cast(mask, "int32")
        length = ops.sum(real, axis=1, keepdims=True)  # (B, 1)
        zero = ops.zeros_like(x[:, :1])
        x = ops.concatenate([zero + START, x, zero], axis=1)
        place = ops.cumsum(ops.ones_like(x), axis=1) - 1  # (B, T + 2)
        x = ops.where(ops.equal(place, length + 1), END, x)
        mask = ops.less_equal(place, length + 1)
    ids = x - _FIRST
    for ours, id in zip(OURS, theirs, strict=True):
        ids = ops.where(ops.equal(x, ours), id, ids)
    given = {
        "token_ids": ids,
        "padding_mask": ops.cast(mask, "int32"),
        "segment_ids": ops.zeros_like(ids),
    }
    h = backbone({name: given[name] for name in backbone.input})
    if isinstance(h, dict):
        h = h["sequence_output"]
    if len(h.shape) != 3:
        raise UserError(f"{backbone.name} gives no state for each token: take another preset")
    return h[:, 1:-1] if marked else h
