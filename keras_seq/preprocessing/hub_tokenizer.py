"""The tokenizer of a KerasHub preset, on our ids: theirs plus five, behind our special ones."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq.errors import UserError
from keras_seq.preprocessing.device_tokenizer import (
    END,
    MASK,
    PADDING,
    SPECIAL,
    START,
    UNKNOWN,
    DeviceTokenizer,
)
from keras_seq.preprocessing.tokenizer import Tokenizer, check_clean

PREFIX = "hub:"
_FIRST = len(SPECIAL)
_MISSING = "{} is a preset of KerasHub, which is not installed: pip install keras-hub"


def import_hub(what: str) -> Any:
    """Imports KerasHub.

    Args:
        what: What it is needed for, for the message.

    Returns:
        The module.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise UserError(_MISSING.format(what)) from error
    return keras_hub


def load_preset(kind: Any, preset: str, **options: Any) -> Any:
    """Loads a part of a preset from a folder, or by its name where there is a network.

    Args:
        kind: A class of KerasHub with ``from_preset``.
        preset: A folder, or the name of a preset.
        **options: For ``from_preset``.

    Returns:
        The backbone or the tokenizer.

    Raises:
        UserError: If there is no such preset, or it cannot be read.
    """
    path = Path(preset).expanduser()
    found = str(path) if path.is_dir() else preset
    try:
        return kind.from_preset(found, **options)
    except Exception as error:  # whatever a download, a file or a class of theirs raises
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # Of a list that begins here, the sentence before it.
        reason = (lines or [type(error).__name__])[0].split(". A preset must")[0][:160]
        raise UserError(
            f"{PREFIX}{preset} cannot be loaded ({reason}): give the folder of a preset, as "
            "save_to_preset writes it, or with a network the name of one of KerasHub"
        ) from error


def special_ids(tokenizer: Any) -> tuple[int, ...]:
    """Returns the ids of a KerasHub tokenizer that our special ones stand for.

    Args:
        tokenizer: Of `keras_hub.tokenizers`.

    Returns:
        Padding, unknown, start, end and mask; what it has not is the id of padding, or 0.
    """

    def find(*names: str) -> int | None:
        values = (getattr(tokenizer, name, None) for name in names)
        return next((int(value) for value in values if isinstance(value, (int, np.integer))), None)

    padding = find("pad_token_id", "end_token_id") or 0
    unknown = find("unk_token_id")
    if unknown is None and isinstance(getattr(tokenizer, "oov_token", None), str):
        unknown = int(tokenizer.token_to_id(tokenizer.oov_token))
    rest = (find("start_token_id", "cls_token_id"), find("end_token_id"), find("mask_token_id"))
    return (padding, *(padding if i is None else i for i in (unknown, *rest)))


def hub_tokenizer(preset: str, *, clean: str = "none") -> Any:
    """Makes the tokenizer of a preset.

    Word pieces become a `Tokenizer` of ours, which runs on a device and in plain TensorFlow; it
    cuts words as BERT does but for a few signs. All others keep KerasHub's code.

    Args:
        preset: A folder, or the name of a preset.
        clean: As for `train_tokenizer`.

    Returns:
        A `Tokenizer` or a `HubTokenizer`; its id of a token is the preset's plus 5.

    Raises:
        UserError: If KerasHub is not installed, or there is no such preset.
    """
    check_clean(clean)
    hub = import_hub(PREFIX + preset)
    theirs = load_preset(hub.tokenizers.Tokenizer, preset)
    if isinstance(theirs, hub.tokenizers.WordPieceTokenizer) and not theirs.strip_accents:
        return Tokenizer(
            {
                "kind": "word_pieces",
                "lowercase": bool(theirs.lowercase),
                "clean": clean,
                "vocabulary": [*SPECIAL, *theirs.get_vocabulary()],
            },
            report=(f"the tokenizer is that of {preset}",),
        )
    return HubTokenizer(_config_of(theirs, clean), report=(f"the tokenizer is that of {preset}",))


def _config_of(theirs: Any, clean: str) -> dict[str, Any]:
    """All that a KerasHub tokenizer is, its files included, as JSON can hold it."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        theirs.save_assets(folder)
        assets = {
            path.name: base64.b64encode(path.read_bytes()).decode("ascii")
            for path in sorted(Path(folder).iterdir())
        }
    return {
        "kind": "hub",
        "lowercase": bool(getattr(theirs, "lowercase", False)),
        "clean": clean,
        "layer": keras.saving.serialize_keras_object(theirs),
        "assets": assets,
    }


class HubTokenizer:
    """A tokenizer of KerasHub with the interface of `Tokenizer`.

    Args:
        config: What `config` gave.
        report: Notes for the user.

    Raises:
        UserError: If KerasHub is not installed.
    """

    kind = "hub"
    needs_tensorflow_text = True

    def __init__(self, config: dict[str, Any], *, report: Iterable[str] = ()) -> None:
        import keras

        import_hub("this tokenizer")
        self._config = config
        self.report = tuple(report)
        self.lowercase, self.clean = bool(config["lowercase"]), str(config["clean"])
        self.layer = keras.saving.deserialize_keras_object(config["layer"])
        with tempfile.TemporaryDirectory() as folder:
            for name, content in config["assets"].items():
                Path(folder, Path(name).name).write_bytes(base64.b64decode(content))
            self.layer.load_assets(folder)
        rules = {"kind": "characters", "lowercase": False, "vocabulary": list(SPECIAL)}
        self._clean = DeviceTokenizer({**rules, "clean": self.clean}).normalise

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HubTokenizer:
        """Makes the tokenizer of a configuration."""
        return cls(config)

    def config(self) -> dict[str, Any]:
        """Returns everything that the tokenizer is, as JSON can hold it."""
        return dict(self._config)

    @property
    def size(self) -> int:
        """Number of ids, ours included."""
        return int(self.layer.vocabulary_size()) + _FIRST

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens by id, the five special ones first."""
        theirs = range(int(self.layer.vocabulary_size()))
        return (*SPECIAL, *(str(self.layer.id_to_token(i)) for i in theirs))

    def encode(self, text: str) -> np.ndarray:
        """Returns the ids of one text, (T,) int32."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Returns the ids of many texts."""
        found = []
        for text in texts:
            ids = np.asarray(self.layer(self._clean(text)), np.int32).reshape(-1) + _FIRST
            found.append(ids.astype(np.int32) if len(ids) else np.array([UNKNOWN], np.int32))
        return found

    def tokens(self, text: str) -> list[str]:
        """Returns what each id stands for."""
        ids = self.encode(text)
        if ids.tolist() == [UNKNOWN]:
            return [SPECIAL[UNKNOWN]]
        return [str(self.layer.detokenize([int(i) - _FIRST])) for i in ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids; special ones are left out."""
        theirs = [int(i) - _FIRST for i in ids if int(i) >= _FIRST]
        if any(i >= self.size - _FIRST for i in theirs):
            raise UserError(f"an id is not below {self.size}: these ids are of another tokenizer")
        return str(self.layer.detokenize(theirs)) if theirs else ""

    def graph(self, max_tokens: int | None = None, *, keep: str = "head") -> Any:
        """Returns the same tokenizer as a graph, see `Tokenizer.graph`; it needs tensorflow-text.

        Args:
            max_tokens: Longer texts are cut to this many ids; None cuts none.
            keep: Of a longer text: its "head", or its "ends".
        """
        from keras_seq.preprocessing.hub_graph import HubGraph

        return HubGraph(self.layer, self.clean, max_tokens=max_tokens, keep=keep)

    def device_files(self, max_tokens: int | None = None, keep: str = "head") -> dict[str, bytes]:
        """Returns nothing: these tokenizers do not run without KerasHub."""
        return {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HubTokenizer) and self._config == other._config

    def __hash__(self) -> int:
        return hash((self.kind, self.clean, tuple(self._config["assets"].values())))

    def __reduce__(self) -> tuple[Any, ...]:
        return HubTokenizer, (self._config,)


# How the ids of a network that reads ours become the preset's.
OURS = (PADDING, UNKNOWN, START, END, MASK)
