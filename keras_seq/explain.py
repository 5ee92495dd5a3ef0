"""Which tokens a label came from: attention, or gradient times input."""

from __future__ import annotations

import base64
import html
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.errors import UserError
from keras_seq.preprocessing.device_tokenizer import SPECIAL

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure
    from rich.console import RenderableType

METHODS = ("attention", "gradient x input")
_MAP_TOKENS = 40  # of a longer text a map cannot be read
_SPACED = ("words", "word_pieces")  # kinds of tokenizers whose tokens have lost their blanks


@dataclass(frozen=True)
class Reasons:
    """What each token of one text had to do with the score of one class.

    Args:
        weights: (T,). Of attention the share of each token, 0 or more; of gradient x input how much
            it adds to the score, below 0 where it speaks against the class.
        kind: One of `METHODS`.
        score: The logit of the class, less the mean of the others where classes exclude each other.
        maps: Attention weights (heads, queries, keys) by layer.
    """

    weights: np.ndarray
    kind: str
    score: float
    maps: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Explanation:
    """A label, and how much each token of the text had to do with it.

    Args:
        tokens: The T tokens that the model read.
        weights: (T,), see `Reasons`.
        label: The label that is explained.
        probabilities: Of every label.
        kind: ``"attention"`` or ``"gradient x input"``.
        separator: What stands between two tokens when they are shown.
        maps: Attention weights (heads, queries, keys) by layer, empty without attention.

    Example:
        >>> found = Explanation(("not", "bad"), np.array([0.5, -0.1]), "good", {"good": 0.9})
        >>> found.strongest()
        'for good: not +0.5; against: bad -0.1'
    """

    tokens: tuple[str, ...]
    weights: np.ndarray
    label: str
    probabilities: Mapping[str, float]
    kind: str = METHODS[1]
    separator: str = " "
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """The label, its probability, and what the colours are."""
        return f"{self.label} ({100 * self.probabilities[self.label]:.1f} %), by {self.kind}"

    def strongest(self, most: int = 5) -> str:
        """Returns the tokens that count most, in words.

        Args:
            most: Tokens for, and tokens against.
        """
        from keras_seq.figures.text import printable

        order = np.argsort(-np.abs(self.weights), kind="stable")
        groups = {f"for {self.label}": 1, "against": -1}
        if self.kind == METHODS[0]:
            groups = {"looks at": 1}
        said = []
        for name, sign in groups.items():
            found = [
                f"{printable(token).strip() or repr(token)} {self.weights[i]:+.2g}"
                for i, token in ((i, self.tokens[i]) for i in order)
                if sign * self.weights[i] > 0
            ]
            if found:
                said.append(f"{name}: {', '.join(found[:most])}")
        return "; ".join(said)

    def __rich__(self) -> RenderableType:
        """The text in colours, for a terminal."""
        from rich.console import Group
        from rich.text import Text

        from keras_seq.figures.text import printable, shade, shares

        body = Text()
        for i, share in enumerate(shares(self.weights)):
            style = f"black on {shade(share)}" if abs(share) >= 0.02 else ""
            between, word = self._piece(i)
            body.append(between)
            body.append(printable(word), style=style)
        others = ", ".join(
            f"{printable(name)} {100 * p:.1f} %" for name, p in self.probabilities.items()
        )
        parts: list[RenderableType] = [Text(printable(self.heading), style="bold"), Text(others)]
        return Group(*parts, body, Text(printable(self.strongest()), style="dim"))

    def _piece(self, place: int) -> tuple[str, str]:
        """What stands before a token, and the token; ## says that it goes on with a word."""
        token = self.tokens[place]
        if place and self.separator and token.startswith("##") and len(token) > 2:
            return "", token[2:]
        return self.separator if place else "", token

    def to_html(self) -> str:
        """Returns one HTML page that needs nothing else."""
        from keras_seq.figures.text import shade, shares

        spans = []
        for i, share in enumerate(shares(self.weights)):
            ground = f' style="background:{shade(share)}"' if abs(share) >= 0.02 else ""
            tip = f' title="{self.weights[i]:+.3g}"'
            between, word = self._piece(i)
            spans.append(f"{between}<span{tip}{ground}>{html.escape(word)}</span>")
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{100 * p:.2f} %</td></tr>"
            for name, p in self.probabilities.items()
        )
        picture = ""
        figure = self.map_figure()
        if figure is not None:
            held = io.BytesIO()
            figure.savefig(held, format="png", dpi=110)
            code = base64.b64encode(held.getvalue()).decode("ascii")
            picture = f'<p><img alt="attention weights" src="data:image/png;base64,{code}"></p>'
        meaning = (
            "The darker the ground, the more attention a token gets."
            if self.kind == METHODS[0]
            else "Blue speaks for the label, orange against it."
        )
        return (
            '<!doctype html>\n<html lang="und"><head><meta charset="utf-8">'
            f"<title>{html.escape(self.label)}</title>"
            "<style>body{font:16px/1.9 system-ui,sans-serif;max-width:52em;margin:2em auto;"
            "padding:0 1em;color:#000;background:#fff}.text{white-space:pre-wrap;"
            "overflow-wrap:anywhere}span{border-radius:2px}td{padding-right:1.5em}"
            "img{max-width:100%}</style></head><body>\n"
            f'<h1 lang="en">{html.escape(self.heading)}</h1>\n'
            f'<p class="text" dir="auto">{"".join(spans)}</p>\n'
            f'<p lang="en">{meaning} {html.escape(self.strongest())}</p>\n'
            f"<table>{rows}</table>\n{picture}</body></html>\n"
        )

    def write_html(self, path: str | Path) -> Path:
        """Writes the page, whole or not at all.

        Args:
            path: The file; one that is there is replaced.

        Returns:
            The path.

        Raises:
            UserError: If it cannot be written.
        """
        path = Path(path).expanduser()
        page = self.to_html().encode("utf-8", "replace")
        partial = ""
        try:
            handle, partial = tempfile.mkstemp(prefix=".explanation-", dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(page)
            os.chmod(partial, 0o644)  # mkstemp makes it private
            os.replace(partial, path)
        except OSError as error:
            if partial:
                Path(partial).unlink(missing_ok=True)
            raise UserError(
                f"cannot write {path}: {(error.strerror or str(error)).lower()}; give a file in a "
                "folder that exists"
            ) from error
        return path

    def figure(self) -> Figure:
        """Draws the text on its colours."""
        from keras_seq.figures.text import text_figure

        texts = [(self.heading, self.tokens, self.weights)]
        return text_figure(texts, title="", separator=self.separator)

    def map_figure(self) -> Figure | None:
        """Draws the attention weights of the last layer; None without attention, or if too long."""
        if not self.maps or len(self.tokens) > _MAP_TOKENS:
            return None
        from keras_seq.figures import attention_figure
        from keras_seq.figures.text import drawable

        name, weights = list(self.maps.items())[-1]
        heads, queries, keys = weights.shape
        names = [drawable(token) for token in self.tokens]

        def labels(count: int) -> list[str] | None:
            extra = count - len(names)
            return [*["class"] * extra, *names] if extra in (0, 1) else None

        return attention_figure(
            weights if heads > 1 else weights[0],
            title=name,
            query_labels=labels(queries),
            key_labels=labels(keys),
        )


# ---- networks -----------------------------------------------------------------------------------


def attention_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Finds the layers of a model that return their attention weights.

    Args:
        model: Any functional model.

    Returns:
        Layers whose name starts with ``attention`` and whose output is (values, weights).
    """
    return [
        layer
        for layer in model.layers
        if layer.name.startswith("attention") and isinstance(layer.output, (tuple, list))
    ]


def attention_figures(model: keras.Model, inputs: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the attention weights of the first example, a picture for each layer that has any.

    Args:
        model: Any functional model with named inputs.
        inputs: A batch of them; others than its own are left out.

    Returns:
        Figures by tag.
    """
    import keras

    from keras_seq.figures import attention_figure

    found = {}
    for layer in attention_layers(model):
        probe = keras.Model(model.input, layer.output)
        weights = np.asarray(probe.predict_on_batch({k: inputs[k] for k in model.input})[1])[0]
        found[f"attention/{layer.name}"] = attention_figure(weights, title=layer.name)
    return found


def reasons(
    model: keras.Model,
    ids: np.ndarray,
    *,
    target: int | None = None,
    exclusive: bool = True,
    method: str | None = None,
) -> Reasons:
    """Tells how much each token of a text has to do with the score of a class.

    Args:
        model: A network with the input ``tokens`` and the output ``logits`` (batch, classes), or a
            deployable one that holds such a network.
        ids: (T,) token ids.
        target: The class; None is the one with the highest score.
        exclusive: Whether classes exclude each other: then a score is taken against the mean of the
            others, since only differences matter to a softmax.
        method: ``"attention"`` or ``"gradient x input"``; None takes attention where there is any.

    Returns:
        The weights of the tokens.

    Raises:
        UserError: If the model has no such output, no attention where it is asked for, or reads
            tokens in a way that gradients do not follow.

    Reference:
        Gradient x input: Shrikumar et al. 2017, Learning Important Features Through Propagating
        Activation Differences. Of a linear model the weights and the bias add up to the score.
        Attention: weights of the last layer, averaged over heads and queries; what they say
        about causes is disputed (Jain and Wallace 2019, Attention is not Explanation).
    """
    if method is not None and method not in METHODS:
        raise UserError(f"the method is {method!r}: give one of {', '.join(METHODS)}")
    network = _network(model)
    ids = np.asarray(ids, np.int32)
    given = _padded(network, ids)
    maps = _attention_maps(network, given, len(ids)) if method != METHODS[1] else {}
    if method == METHODS[0] and not maps:
        raise UserError(f"{network.name} has no attention over its tokens: take {METHODS[1]!r}")
    if maps:
        weights = _attended(network, list(maps.values())[-1], len(ids))
        logits = np.asarray(network({"tokens": given}, training=False)["logits"])[0]
        target = int(logits.argmax()) if target is None else target
        score = float(logits @ _contrast(len(logits), target, exclusive))
        return Reasons(weights, METHODS[0], score, maps)
    weights, score = _gradient_times_input(network, given, len(ids), target, exclusive)
    return Reasons(weights, METHODS[1], score)


def _network(model: keras.Model) -> keras.Model:
    """The network that gives logits, inside a deployable model."""
    import keras

    for candidate in (model, *(x for x in model.layers if isinstance(x, keras.Model))):
        # A sequential model has neither attribute before it is called.
        inputs, outputs = getattr(candidate, "input", None), getattr(candidate, "output", None)
        if not isinstance(inputs, dict) or not isinstance(outputs, dict):
            continue
        if list(inputs) == ["tokens"] and "logits" in outputs:
            return candidate
    raise UserError(f"{model.name} does not map tokens to the scores of labels: nothing to explain")


def _padded(network: keras.Model, ids: np.ndarray) -> np.ndarray:
    """(1, T), as long as the network wants it."""
    steps = network.input["tokens"].shape[1]
    given = np.zeros((1, steps or len(ids)), np.int32)
    given[0, : len(ids)] = ids
    return given


def _contrast(classes: int, target: int, exclusive: bool) -> np.ndarray:
    """What the logits are multiplied with to give the score of a class."""
    found = np.zeros(classes, np.float32)
    if exclusive and classes > 1:
        found -= 1 / (classes - 1)
    found[target] = 1
    return found


def _attention_maps(network: keras.Model, given: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """(heads, queries, keys) by layer, where the keys are the tokens (and a class token)."""
    import keras

    outputs = {layer.name: layer.output[1] for layer in attention_layers(network)}
    if not outputs:
        return {}
    found = keras.Model(network.input, outputs)({"tokens": given}, training=False)
    maps = {}
    for name, weights in found.items():
        value = np.asarray(weights, np.float32)[0]
        value = value[None] if value.ndim == 2 else value
        front = value.shape[2] - given.shape[1]  # a class token
        if front in (0, 1):
            # A single query, or one of each step: what is padding is left out of both.
            maps[name] = value[:, : steps + front, : steps + front]
    return maps


def _attended(network: keras.Model, weights: np.ndarray, steps: int) -> np.ndarray:
    """(T,): of the query that the label is read from, or of all of them on average."""
    from keras_seq.layers import Pooling

    pooled = [layer.method for layer in network.layers if isinstance(layer, Pooling)]
    rows = weights.mean(axis=0)  # (queries, keys)
    one = {"first": 0, "last": -1}.get(pooled[0]) if len(pooled) == 1 else None
    row = rows.mean(axis=0) if one is None else rows[one]
    return row[len(row) - steps :]


def _gradient_times_input(
    network: keras.Model, given: np.ndarray, steps: int, target: int | None, exclusive: bool
) -> tuple[np.ndarray, float]:
    """(T,) and the score.

    What tokens become features by is a table with a row for each id: a gradient with respect to it
    comes as one row for each look-up, in the order of the look-ups. So it is the gradient at the
    embedded tokens, wherever in the network the table is, with no knowledge of its layer.
    """
    import tensorflow as tf

    # A pretrained network counts its ids from 0, behind our special ones.
    most = int(given.max()) - len(SPECIAL)
    tables = [v.value for v in network.variables if len(v.shape) == 2 and v.shape[0] > most]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for table in tables:
            tape.watch(table)
        logits = tf.cast(network({"tokens": given}, training=False)["logits"][0], tf.float32)
        target = int(tf.argmax(logits)) if target is None else target
        contrast = _contrast(int(logits.shape[0]), target, exclusive)
        score = tf.reduce_sum(logits * contrast)
    gradients = tape.gradient(score, tables)
    trained = {id(v.value) for v in network.trainable_variables}
    found: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for table, gradient in zip(tables, gradients, strict=True):
        if not isinstance(gradient, tf.IndexedSlices):
            continue
        rows = tf.gather(table, gradient.indices)
        each = tf.reduce_sum(gradient.values * tf.cast(rows, gradient.values.dtype), axis=-1)
        for share in _by_token(np.asarray(gradient.indices), np.asarray(each), given[0], steps):
            found[id(table) in trained].append(share)
    # Of a product of two tables (one learned, one counted) each would give the whole.
    parts = found[True] or found[False]
    if not parts:
        raise UserError(
            f"{network.name} looks its tokens up in no table that a gradient could be followed to: "
            "this architecture cannot be explained"
        )
    return np.sum(parts, axis=0), float(score)


def _by_token(
    looked_up: np.ndarray, each: np.ndarray, given: np.ndarray, steps: int
) -> list[np.ndarray]:
    """What look-ups add up to at each token: (T,) arrays, none if it was not tokens they were.

    Look-ups come as all tokens, then all pairs, all triples (`HashedNGrams`); several members of an
    ensemble come one behind the other only if they share a table, which none do.
    """
    length = len(given)
    # A class token in front; or the start and the end token of a pretrained network, which counts
    # its ids from 0, behind our special ones.
    for front, wide in ((0, length), (1, length + 1), (1, length + 2)):
        if len(looked_up) % wide:
            continue
        part = looked_up[front : front + length]
        real = given >= len(SPECIAL)
        theirs = real.any() and np.array_equal(part[real], given[real] - len(SPECIAL))
        if not (np.array_equal(part, given) or theirs):
            continue
        total = np.zeros(wide + len(looked_up) // wide)
        for order, row in enumerate(each.reshape(-1, wide).astype(np.float64), 1):
            for place in range(order):  # an n-gram is shared out among its tokens
                total[place : place + wide] += row / order
        return [total[front : front + steps]]
    return []


# ---- texts --------------------------------------------------------------------------------------


def explain(
    model: keras.Model,
    tokenizer: Any,
    text: str,
    labels: Sequence[str],
    *,
    max_tokens: int | None = None,
    keep: str = "head",
    exclusive: bool = True,
    method: str | None = None,
) -> Explanation:
    """Explains the label that a model gives a text.

    Args:
        model: As for `reasons`.
        tokenizer: Of `keras_seq.preprocessing`: the one that the model was trained with.
        text: Any text.
        labels: Names of the classes.
        max_tokens: A longer text is cut to this many tokens; None cuts none.
        keep: What is kept of it, "head" or "ends".
        exclusive: Whether classes exclude each other.
        method: As for `reasons`.

    Returns:
        The explanation of the label with the highest probability.
    """
    from keras_seq.data import TokenBatches, TokenStore

    ids, tokens = tokenizer.encode(text), tokenizer.tokens(text)
    # Cut as in training, by what cuts there: the places that are kept are its "ids".
    every = TokenStore.from_rows([np.arange(len(ids), dtype=np.int32)])
    cutter = TokenBatches(every, None, max_tokens=max_tokens, keep=keep)
    kept = np.asarray(cutter.batch(np.array([0]))[0]["tokens"][0])
    places = kept[: min(len(ids), max_tokens or len(ids))]  # without the padding of a batch
    ids, tokens = ids[places], [tokens[i] for i in places]
    network = _network(model)
    given = {"tokens": _padded(network, ids)}
    logits = np.asarray(network(given, training=False)["logits"], np.float64)[0]
    if exclusive:
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
    else:
        shares = 1 / (1 + np.exp(-logits))
    best = int(shares.argmax())
    found = reasons(network, ids, target=best, exclusive=exclusive, method=method)
    kind = str(tokenizer.config().get("kind", ""))
    return Explanation(
        tokens=tuple(tokens),
        weights=found.weights,
        label=labels[best],
        probabilities={name: float(p) for name, p in zip(labels, shares, strict=True)},
        kind=found.kind,
        separator=" " if kind in _SPACED else "",
        maps=found.maps,
    )


def explain_text(run: str | Path, text: str, *, method: str | None = None) -> Explanation:
    """Explains the label that a trained run gives a text.

    Args:
        run: A run folder, ``runs/COMPARISON/ARCHITECTURE/SEED``, an exported folder with the format
            ``keras``, or a ``.keras`` file.
        text: Any text.
        method: ``"attention"`` or ``"gradient x input"``; None takes attention where there is any.

    Returns:
        The explanation: shown in colours by a rich console, as html by `Explanation.write_html`.

    Raises:
        UserError: If there is no model, or it does not label texts.
    """
    from keras_seq import saving
    from keras_seq.preprocessing import Tokenizer

    path = Path(run).expanduser()
    candidates = [path, path / "model.keras", path / "keras" / "model.keras"]
    file = next((p for p in candidates if p.suffix == ".keras" and p.is_file()), None)
    if file is None:
        raise UserError(
            f"{path} holds no model.keras: give a run folder runs/COMPARISON/ARCHITECTURE/SEED"
        )
    metadata = saving.read_metadata(file)
    if "tokenizer" not in metadata or "labels" not in metadata or "max_tokens" not in metadata:
        task = metadata.get("task", "no task")
        raise UserError(f"{path} is of {task}, and what can be explained are labels of texts")
    return explain(
        saving.load(file),
        Tokenizer.from_config(metadata["tokenizer"]),
        text,
        metadata["labels"],
        max_tokens=metadata["max_tokens"],
        keep=metadata["keep"],
        exclusive=not metadata["multi_label"],
        method=method,
    )


def explanation_figures(
    model: keras.Model,
    tokenizer: Any,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    max_tokens: int | None = None,
    keep: str = "head",
    exclusive: bool = True,
    most_tokens: int = 160,
) -> dict[str, Figure]:
    """Draws some texts on the colours of their explanations, for TensorBoard.

    Args:
        model: The network that is trained.
        tokenizer: Its tokenizer.
        texts: Some texts, of which each makes a block.
        labels: Names of the classes.
        max_tokens: A longer text is cut to this many tokens.
        keep: What is kept of it.
        exclusive: Whether classes exclude each other.
        most_tokens: What a picture has room for: a longer text is cut to this.

    Returns:
        Figures by tag; none where the model cannot be explained.
    """
    from keras_seq.figures.text import text_figure

    most = min(max_tokens or most_tokens, most_tokens)
    try:
        found = [
            explain(model, tokenizer, text, labels, max_tokens=most, keep=keep, exclusive=exclusive)
            for text in texts
        ]
    except UserError:
        return {}
    if not found:
        return {}
    pieces = [(each.heading, each.tokens, each.weights) for each in found]
    title = "what the labels came from"
    return {"explanations": text_figure(pieces, title=title, separator=found[0].separator)}
