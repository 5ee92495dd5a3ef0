"""What tasks on text share: splits that keep like rows together, ids, warm starts, notes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.data import TokenStore
from keras_seq.errors import UserError

if TYPE_CHECKING:
    import keras
    from rich.table import Table

    from keras_seq.preprocessing.tokenizer import Tokenizer

UNKNOWN = 1


# ---- splits -------------------------------------------------------------------------------------


def same_side(*keys: Sequence[Hashable]) -> np.ndarray:
    """Numbers groups of rows that must stay on one side of a split.

    Args:
        *keys: One value for each of N rows; rows that are equal in any of them are one group.

    Returns:
        (N,) group numbers.

    Example:
        >>> same_side(["a", "b", "c"], ["film 1", "film 2", "film 1"]).tolist()
        [0, 1, 0]
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(keys[0])
    rows, nodes, first = [], [], count
    for key in keys:
        numbers: dict[Hashable, int] = {}
        nodes.append([first + numbers.setdefault(value, len(numbers)) for value in key])
        rows.append(np.arange(count))
        first += len(numbers)
    ends = (np.concatenate(rows), np.concatenate(nodes).astype(np.int64))
    graph = coo_matrix((np.ones(len(ends[0]), np.int8), ends), shape=(first, first))
    return connected_components(graph, directed=False)[1][:count]


def hold_out(
    labels: Sequence[Hashable], fraction: float, *, groups: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Chooses rows to hold out: of each label the same share, whole groups, in a fixed order.

    Args:
        labels: (N,) the label of each row.
        fraction: The share of rows, 0 to below 1.
        groups: (N,) group numbers, see `same_side`; None is each row for itself.
        seed: Of the choice.

    Returns:
        (N,) True at rows that are held out. At least one group of each label is not.

    Example:
        >>> hold_out(["a"] * 8 + ["b"] * 2, 0.5).sum()
        np.int64(5)
    """
    place = _places(labels, groups, seed)
    # The middle of a group decides, so that large groups fall on both sides alike.
    return place > 1 - fraction


def fold_of(
    labels: Sequence[Hashable], folds: int, *, groups: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Deals rows to folds: of each label as many to each, whole groups, in a fixed order.

    Args:
        labels: (N,) the label of each row.
        folds: How many, at least 2.
        groups: (N,) group numbers, see `same_side`; None is each row for itself.
        seed: Of the order.

    Returns:
        (N,) the fold of each row, 0 to `folds` - 1.

    Example:
        >>> np.bincount(fold_of(["a"] * 8 + ["b"] * 4, 4)).tolist()
        [3, 3, 3, 3]
    """
    place = _places(labels, groups, seed)
    return np.minimum((place * folds).astype(int), folds - 1)


def _places(labels: Sequence[Hashable], groups: np.ndarray | None, seed: int) -> np.ndarray:
    """Where the middle of each row's group stands in a shuffled row of its label, 0 to 1."""
    group = np.arange(len(labels)) if groups is None else np.asarray(groups)
    _, first, group, size = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True
    )
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(label, len(numbers)) for label in labels])
    of_group = codes[first]  # the label of its first row stands for a group
    order = np.random.default_rng(seed).permutation(len(size))
    place = np.zeros(len(size))
    for code in range(len(numbers)):
        mine = order[of_group[order] == code]
        ends = np.cumsum(size[mine])
        if len(mine):
            place[mine] = (ends - size[mine] / 2) / ends[-1]
            place[mine[0]] = 0.0  # so that every label is learned
    return place[group]


# ---- ids ----------------------------------------------------------------------------------------


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenStore:
    """Encodes texts; one without tokens becomes the unknown token, so that it has a step.

    Args:
        tokenizer: From `keras_seq.preprocessing`.
        texts: N texts.

    Returns:
        Their ids.
    """
    empty = np.array([UNKNOWN], np.int32)
    return TokenStore.from_rows(
        row if len(row) else empty for row in tokenizer.encode_batch(list(texts))
    )


def check_ids(tokens: Any, vocabulary: int) -> np.ndarray:
    """Refuses ids that a model has no row for.

    Args:
        tokens: (N, T) ids.
        vocabulary: How many ids there are.

    Returns:
        The ids as int32.

    Raises:
        UserError: If they are no whole numbers or out of range.

    Example:
        >>> check_ids([[5, 99]], 10)
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: token id 99 in row 1: the model knows the ids 0 to 9; ...
    """
    ids = np.asarray(tokens)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise UserError(
            f"token ids are {ids.dtype} of shape {ids.shape}: give whole numbers, (texts, tokens)"
        )
    wrong = np.argwhere((ids < 0) | (ids >= vocabulary))
    if len(wrong):
        row, column = wrong[0]
        raise UserError(
            f"token id {ids[row, column]} in row {row + 1}: the model knows the ids 0 to "
            f"{vocabulary - 1}; encode the texts with the tokenizer that lies beside the model"
        )
    return ids.astype(np.int32)


def pad(rows: Sequence[np.ndarray], steps: int | None = None) -> np.ndarray:
    """Pads rows of ids on the right with 0.

    Args:
        rows: N rows of ids.
        steps: To this many; None is the longest of them.

    Returns:
        (N, T) int32.

    Example:
        >>> pad([np.array([5, 6]), np.array([7])]).tolist()
        [[5, 6], [7, 0]]
    """
    longest = max((len(row) for row in rows), default=0) if steps is None else steps
    found = np.zeros((len(rows), longest), np.int32)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row[:longest]
    return found


def cut(row: np.ndarray, most: int, keep: str) -> np.ndarray:
    """Shortens a row of ids as `keras_seq.data.TokenBatches` does.

    Args:
        row: (T,) ids.
        most: The most that stay.
        keep: "head", or "ends": the first quarter and the last three quarters.

    Example:
        >>> cut(np.arange(10), 4, "ends").tolist()
        [0, 7, 8, 9]
    """
    if len(row) <= most:
        return row
    if keep == "head":
        return row[:most]
    first = most // 4
    return np.concatenate([row[:first], row[len(row) - (most - first) :]])


# ---- weights of another run ---------------------------------------------------------------------


class WarmStart:
    """The weights and the tokenizer of a finished run, to begin another one with.

    Args:
        run: A run folder, ``runs/COMPARISON/ARCHITECTURE/SEED``, or a ``.keras`` file.

    Raises:
        UserError: If it is neither, or was not trained on text.
    """

    def __init__(self, run: str | Path) -> None:
        from keras_seq import saving

        path = Path(run).expanduser()
        self.run = str(run)
        self.path = path if path.suffix == ".keras" else path / "model.keras"
        if not self.path.is_file():
            raise UserError(
                f"--init is {run}: there is no {self.path.name} in it; give a run folder "
                "runs/COMPARISON/ARCHITECTURE/SEED"
            )
        self.metadata: dict[str, Any] = saving.read_metadata(self.path)
        if "tokenizer" not in self.metadata:
            raise UserError(f"--init is {run}: it was not trained on text, it has no tokenizer")
        self._layers: dict[str, list[np.ndarray]] | None = None

    def tokenizer(self) -> Tokenizer:
        """Returns the tokenizer of the run: the same words must have the same ids."""
        from keras_seq.preprocessing import Tokenizer

        return Tokenizer.from_config(self.metadata["tokenizer"])

    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """Returns those of source and target: one and the same, but of runs of separate ones."""
        from keras_seq.preprocessing import Tokenizer

        source, target = self.tokenizer(), self.metadata.get("target_tokenizer")
        return source, Tokenizer.from_config(target) if target else source

    def apply(self, model: keras.Model, *, skip: Iterable[str] = ()) -> tuple[str, ...]:
        """Takes over the weights of every layer that has the same name and shapes in both.

        Args:
            model: The network that begins with them.
            skip: Names of layers that begin anew all the same.

        Returns:
            The names of the layers that were taken.

        Raises:
            UserError: If no layer fits.
        """
        from keras_seq import saving

        if self._layers is None:
            shipped = saving.load(self.path)
            self._layers = {
                name: [np.asarray(w) for w in layer.weights]
                for name, layer in _named_layers(shipped)
            }
        taken = []
        ours = dict(_named_layers(model))
        # Of a run with a tokenizer for each side, one text alone is read as its sources were.
        apart = "target_tokenizer" in self.metadata and "source" not in model.input
        for name, layer in ours.items():
            theirs = self._layers.get("source_embedding" if apart and name == "embedding" else name)
            shapes = [tuple(w.shape) for w in layer.weights]
            if name in skip or not theirs or [w.shape for w in theirs] != shapes:
                continue
            for variable, value in zip(layer.weights, theirs, strict=True):
                variable.assign(value)
            taken.append(name)
        if not taken:
            raise UserError(
                f"--init is {self.run}: none of its layers ({', '.join(self._layers)}) has the "
                f"name and the shape of one of {model.name} ({', '.join(ours)}); take the same "
                "architecture with the same widths"
            )
        return tuple(taken)

    def note(self, model: keras.Model, taken: Iterable[str]) -> str:
        """Says what was taken over, and what was not.

        Args:
            model: The network that begins with it.
            taken: Names of layers, from `apply`.
        """
        taken = list(taken)
        fresh = [name for name, _ in _named_layers(model) if name not in taken]
        said = f"{model.name} begins with the weights of {self.run}: {', '.join(taken)}"
        return said + (f"; anew: {', '.join(fresh)}" if fresh else "")


# What the numbers of word vectors are brought to, root mean square: the first steps of training go
# as far as from a table that begins by chance.
_VECTOR_SCALE = 0.1


class WordVectors:
    """Vectors of words from a file, for the embedding to begin with.

    Args:
        path: See `keras_seq.preprocessing.read_word_vectors`.
        tokenizer: Its words get them.

    Raises:
        UserError: If the file is wrong, or the tokens are no words.
    """

    def __init__(self, path: str | Path, tokenizer: Tokenizer) -> None:
        from keras_seq.preprocessing import read_word_vectors

        if tokenizer.kind != "words":
            raise UserError(
                f"--vectors has a vector for each word, and the tokens are {tokenizer.kind}: take "
                "--tokenizer words"
            )
        self.path = str(path)
        self.vectors, self.known = read_word_vectors(path, tokenizer.vocabulary)
        spread = float(np.sqrt(np.mean(np.square(self.vectors[self.known], dtype=np.float64))))
        self.vectors *= np.float32(_VECTOR_SCALE / max(spread, 1e-12))

    @property
    def width(self) -> int:
        """Features of a word."""
        return int(self.vectors.shape[1])

    def apply(self, model: keras.Model) -> tuple[str, ...]:
        """Puts the vectors into the embedding; words without one keep what they have.

        Args:
            model: A network on token ids.

        Returns:
            What to say of it, in one line.
        """
        layer = dict(_named_layers(model)).get("embedding")
        known = f"{self.known.sum():,} of {len(self.known):,} words"
        if layer is None or tuple(layer.weights[0].shape) != self.vectors.shape:
            return (f"{model.name} embeds words in its own way: no vectors of {self.path}",)
        table = layer.weights[0]
        table.assign(np.where(self.known[:, None], self.vectors, np.asarray(table)))
        return (f"{model.name} begins with the vectors of {self.path}: {known}",)


def _named_layers(model: keras.Model) -> Iterable[tuple[str, Any]]:
    """The layers that have weights, those of nested models one by one."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _named_layers(layer)
        elif layer.weights:
            yield layer.name, layer


# ---- notes --------------------------------------------------------------------------------------


def class_notes(labels: Mapping[str, Sequence[str]], most: int = 8) -> list[str]:
    """Says how many examples of each class there are in each part.

    Args:
        labels: The label of each example, by part.
        most: Classes that are named.

    Example:
        >>> class_notes({"train": ["a", "b", "a"], "test": ["b"]})
        ['train: 3 examples (a 2, b 1); test: 1 examples (b 1)']
    """
    said = []
    for part, values in labels.items():
        counts = Counter(values).most_common()
        shown = ", ".join(f"{name} {n:,}" for name, n in counts[:most])
        more = f", {len(counts) - most} more classes" if len(counts) > most else ""
        said.append(f"{part}: {len(values):,} examples ({shown}{more})")
    return ["; ".join(said)]


def length_note(lengths: np.ndarray, most: int | None) -> str:
    """Says how long texts are, and how many are cut.

    Args:
        lengths: (N,) tokens of each text.
        most: The most tokens of a text that are read; None reads all.

    Example:
        >>> length_note(np.array([3, 5, 40]), 20)
        'tokens a text: median 5, 95 % under 36, longest 40; 33.3 % are longer than 20 and are cut'
    """
    middle, high = np.quantile(lengths, [0.5, 0.95])
    said = f"tokens a text: median {middle:.0f}, 95 % under {high:.0f}, longest {lengths.max():,}"
    over = float((lengths > most).mean()) if most else 0.0
    return f"{said}; {100 * over:.1f} % are longer than {most} and are cut" if over else said


def duplicate_notes(
    train: Sequence[str],
    test: Sequence[str],
    *,
    train_rows: Sequence[int] | None = None,
    test_rows: Sequence[int] | None = None,
    most: int = 50_000,
    shown: int = 3,
) -> list[str]:
    """Says how many texts of the test part stand, nearly the same, in the training part too.

    Args:
        train: Texts of the training part.
        test: Texts of the test part.
        train_rows: What rows of their file the training texts are, from 0; None counts them.
        test_rows: Likewise.
        most: Texts of a part that are looked at: the first so many.
        shown: Examples that are shown.

    Returns:
        Lines; empty where there are none.
    """
    from keras_seq.data import near_duplicates

    found = near_duplicates(list(train[:most]), list(test[:most]))
    if not found:
        return []
    best = {j: (i, share) for i, j, share in sorted(found, key=lambda pair: pair[2])}
    said = [
        f"{len(best)} of {len(test):,} test texts ({len(best) / len(test):.1%}) stand in the "
        "training part too, the same or nearly so: their scores flatter"
    ]
    for j, (i, share) in sorted(best.items())[:shown]:
        start = " ".join(test[j].split())[:60]
        theirs = 1 + (j if test_rows is None else test_rows[j])
        ours = 1 + (i if train_rows is None else train_rows[i])
        said.append(f"  test: row {theirs}, training: row {ours} ({share:.0%} alike): {start!r}")
    return said


def json_bytes(value: Any) -> bytes:
    """Returns JSON as it lies in a file: UTF-8, a line feed at the end.

    Args:
        value: JSON values.

    Example:
        >>> print(json_bytes({"label": "é"}).decode(), end="")
        {
         "label": "é"
        }
    """
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


# ---- tokenizers ---------------------------------------------------------------------------------


def compare_tokenizers(
    data: str,
    *,
    text_column: str = "text",
    kinds: Sequence[str] | None = None,
    vocabulary: int = 30_000,
    lowercase: bool = True,
    clean: str = "none",
    most: int = 5_000,
) -> Table:
    """Trains tokenizers on the texts of a file, and shows what each makes of others of its texts.

    Args:
        data: A file of texts, or ``builtin:reviews``.
        text_column: Its column of texts.
        kinds: Names of tokenizers; None is all of them.
        vocabulary: At most so many ids of each.
        lowercase: Whether texts are put into lower case.
        clean: How texts are cleaned, see `keras_seq.preprocessing.train_tokenizer`.
        most: Texts that the figures are measured on: a fifth of all, at most so many, which no
            tokenizer was trained on.

    Returns:
        A table with a row for each tokenizer.

    Raises:
        UserError: If the file or an option is wrong.
    """
    from rich.table import Table

    from keras_seq.data import read_texts
    from keras_seq.preprocessing import KINDS, tokenizer_table

    found = read_texts(data, text_columns=(text_column,), label_column=None, need_labels=False)
    texts = found.texts
    if len(texts) < 2:
        raise UserError(
            f"{data} has {len(texts)} texts: at least 2 are needed, to train and to try"
        )
    order = np.random.default_rng(0).permutation(len(texts))
    held = order[: max(1, min(len(texts) // 5, most))]
    trained = np.sort(order[len(held) :])
    frame = tokenizer_table(
        [texts[i] for i in trained],
        kinds=tuple(kinds or KINDS),
        vocabulary=vocabulary,
        lowercase=lowercase,
        clean=clean,
        held_out=[texts[i] for i in np.sort(held)],
    )
    table = Table(
        title=f"{found.source}: trained on {len(trained):,} texts, tried on {len(held):,} others",
        box=None,
    )
    for name in frame.columns:
        words = name == "tokenizer"
        heading = _HEADINGS.get(str(name), str(name))
        table.add_column(heading, justify="left" if words else "right", no_wrap=words)
    for row in frame.itertuples(index=False):
        table.add_row(*(_rounded(value) for value in row))
    return table


# What a heading is cut to, so that nine columns fit 80 characters.
_HEADINGS = {
    "vocabulary": "ids",
    "mean tokens": "tokens\nmean",
    "median tokens": "\nmedian",
    "95 % tokens": "\n95 %",
    "characters per token": "letters\na token",
    "unknown %": "un-\nknown %",
    "seconds to train": "train\ns",
    "microseconds a text": "encode\nµs a text",
}


def _rounded(value: Any) -> str:
    """Three digits, and no more than are in whole numbers."""
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    number = float(value)
    if not np.isfinite(number):
        return "-"
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
