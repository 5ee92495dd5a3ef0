"""The table of contents: one line an architecture, one file each; and `build`.

An architecture is a function on Keras tensors whose keyword-only signature is its configuration.
To add one: a file in this folder and a line in this table.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from keras_seq.registry import architectures

if TYPE_CHECKING:
    import keras

for _name, _target in {
    "linear": "keras_seq.models.linear:linear",
    "mlp": "keras_seq.models.mlp:mlp",
    "cnn": "keras_seq.models.cnn:cnn",
    "tcn": "keras_seq.models.tcn:tcn",
    "rnn": "keras_seq.models.rnn:rnn",
    "lstm": "keras_seq.models.lstm:lstm",
    "gru": "keras_seq.models.gru:gru",
    "min_gru": "keras_seq.models.min_gru:min_gru",
    "s4d": "keras_seq.models.s4d:s4d",
    "attention_rnn": "keras_seq.models.attention_rnn:attention_rnn",
    "transformer": "keras_seq.models.transformer:transformer",
    "gpt": "keras_seq.models.gpt:gpt",
    "bert": "keras_seq.models.bert:bert",
    "patch_transformer": "keras_seq.models.patch_transformer:patch_transformer",
    "inverted_transformer": "keras_seq.models.inverted_transformer:inverted_transformer",
    "segment_rnn": "keras_seq.models.segment_rnn:segment_rnn",
    "nhits": "keras_seq.models.nhits:nhits",
    "tsmixer": "keras_seq.models.tsmixer:tsmixer",
    "cycle": "keras_seq.models.cycle:cycle",
    "bag_of_words": "keras_seq.models.bag_of_words:bag_of_words",
    "fasttext": "keras_seq.models.fasttext:fasttext",
    "text_cnn": "keras_seq.models.text_cnn:text_cnn",
    "rcnn": "keras_seq.models.rcnn:rcnn",
    "seq2seq": "keras_seq.models.seq2seq:seq2seq",
    "seq2seq_attention": "keras_seq.models.seq2seq_attention:seq2seq_attention",
    "seq2seq_transformer": "keras_seq.models.seq2seq_transformer:seq2seq_transformer",
    "conv_seq2seq": "keras_seq.models.conv_seq2seq:conv_seq2seq",
    "t5": "keras_seq.models.t5:t5",
}.items():
    architectures.add(_name, _target)

# What the head of a task hands to an architecture, where its signature asks for it. They are not
# options: a user does not set them.
CONTEXT = (
    "horizon",
    "outputs",
    "period",
    "time_index",
    "vocabulary",
    "classes",
    "exclusive",
    "target",
    "target_mask",
)

# Inputs that hold ids, not measurements, when only their shape is given.
INTEGER_INPUTS = ("tokens", "characters", "source")


@dataclass(frozen=True)
class Architecture:
    """An architecture with its options, ready to be called on Keras tensors.

    Args:
        name: The name it was asked for by.
        function: The function, or a `keras.layers.Layer` subclass.
        options: The options that a user chose; the rest have their defaults.
    """

    name: str
    function: Callable[..., Any]
    options: Mapping[str, Any]

    @property
    def tags(self) -> frozenset[str]:
        """What it declares to be able to do."""
        return frozenset(getattr(self.function, "tags", ()))

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The keyword-only parameters of its signature, context included."""
        return _keywords(self.function)

    @property
    def forecaster(self) -> bool:
        """Whether it maps the lookback to the horizon itself."""
        return "horizon" in self.parameters

    @property
    def reads_tokens(self) -> bool:
        """Whether it takes token ids, and not features of them."""
        return "vocabulary" in self.parameters

    @property
    def encoder_decoder(self) -> bool:
        """Whether it reads a source and a target, and gives states of the target's steps."""
        return "target" in self.parameters

    @property
    def causal(self) -> bool:
        """Whether step t sees only steps up to t; tags describe the default options."""
        chosen = self.options.get("causal", "causal" in self.tags)
        return bool(chosen) and not self.options.get("bidirectional", False)

    def __call__(self, x: Any, *, mask: Any = None, **context: Any) -> Any:
        """Applies it.

        Args:
            x: Features, (batch, time, features); token ids, (batch, time), where it reads them.
            mask: True at real steps, (batch, time), or None.
            **context: What the head knows (see `CONTEXT`); passed on where the signature has it.

        Returns:
            (batch, time, width), (batch, width), or (batch, horizon, channels, outputs).
        """
        known = {k: v for k, v in context.items() if k in self.parameters}
        if isinstance(self.function, type):
            layer = self.function(**self.options, **known)
            takes_mask = "mask" in inspect.signature(layer.call).parameters
            return layer(x, mask=mask) if takes_mask and mask is not None else layer(x)
        if "mask" in self.parameters:
            known["mask"] = mask
        return self.function(x, **self.options, **known)


class Head(Protocol):
    """What connects named inputs to an architecture, and its output to named outputs."""

    def connect(self, architecture: Architecture, inputs: dict[str, Any]) -> dict[str, Any]:
        """Returns named output tensors."""


def resolve(architecture: str | Callable[..., Any], **options: Any) -> Architecture:
    """Finds an architecture and checks its options against its signature.

    Args:
        architecture: A registered name, ``"module:attribute"``, a function, or a subclass of
            `keras.layers.Layer`.
        **options: Its options.

    Returns:
        The architecture with its options.

    Raises:
        UserError: If the name is unknown.
        TypeError: If an option is not in the signature; the message has the nearest one.

    Example:
        >>> from keras_seq.models import resolve
        >>> resolve("lstm", widht=32)
        Traceback (most recent call last):
        ...
        TypeError: lstm has no option 'widht'; did you mean 'width'? (options: ...)
    """
    if isinstance(architecture, str):
        name, function = architecture, architectures.get(architecture)
    else:
        name, function = architecture.__name__, architecture
    bound = Architecture(name, function, dict(options))
    allowed = [key for key in bound.parameters if key not in CONTEXT and key != "mask"]
    for option in options:
        if option not in allowed:
            near = difflib.get_close_matches(option, allowed, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise TypeError(
                f"{name} has no option {option!r}; {hint}(options: {', '.join(allowed) or 'none'})"
            )
    return bound


def build(
    architecture: str | Callable[..., Any],
    *,
    inputs: Any,
    head: Head,
    name: str | None = None,
    **options: Any,
) -> keras.Model:
    """Builds a plain, uncompiled functional `keras.Model` with named inputs and outputs.

    Args:
        architecture: A registered name, ``"module:attribute"``, a function on Keras tensors, or a
            subclass of `keras.layers.Layer`.
        inputs: The shape of one example without the batch, ``(time, features)``; or a dict of
            such shapes or of `keras.Input` tensors by name.
        head: What the output becomes, from `keras_seq.heads`.
        name: The model's name, default the architecture's.
        **options: The architecture's options, as in its signature.

    Returns:
        The model.

    Raises:
        UserError: If the architecture is unknown.
        TypeError: If an option is not in its signature.

    Example:
        >>> import keras_seq
        >>> model = keras_seq.build(
        ...     "lstm", inputs=(48, 2), head=keras_seq.heads.Forecast(horizon=12), width=16
        ... )
        >>> model.output["forecast"].shape
        (None, 12, 2)
    """
    import keras

    bound = resolve(architecture, **options)
    if not isinstance(inputs, Mapping):
        inputs = {"series": inputs}
    tensors = {
        key: value
        if keras.backend.is_keras_tensor(value)
        else keras.Input(value, name=key, dtype="int32" if key in INTEGER_INPUTS else None)
        for key, value in inputs.items()
    }
    outputs = head.connect(bound, tensors)
    title = name or "".join(c if c.isalnum() else "_" for c in bound.name)
    return keras.Model(tensors, outputs, name=title)


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that can be given by keyword, without the features and **kwargs."""
    parameters = dict(inspect.signature(function).parameters)
    if not isinstance(function, type) and parameters:
        parameters.pop(next(iter(parameters)))  # x
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: p for name, p in parameters.items() if p.kind not in kinds}


def solve_width(
    count: Callable[[int], int], parameters: int, *, step: int = 8, most: int = 4096
) -> int:
    """Finds the width whose model comes nearest to a parameter budget without passing it.

    Args:
        count: Gives the number of parameters at a width; it must grow with the width.
        parameters: The budget.
        step: Widths are multiples of this; it keeps the width divisible by the heads.
        most: The largest width tried.

    Returns:
        The width; `step` where even that is over the budget.

    Example:
        >>> solve_width(lambda width: width * width, 1000)
        24
    """
    low, high = 1, most // step  # in steps; `low` is the answer so far
    # Parameters grow as a quadratic in the width at most: guess by it, then close the bracket.
    guess, known = 8, {}

    def at(index: int) -> int:
        if index not in known:
            known[index] = count(index * step)
        return known[index]

    while low < high:
        if at(guess) <= parameters:
            low = guess
        else:
            high = guess - 1
        if low >= high:
            break
        scaled = guess * (parameters / max(at(guess), 1)) ** 0.5
        guess = min(max(round(scaled), low + 1), high)
    return low * step
