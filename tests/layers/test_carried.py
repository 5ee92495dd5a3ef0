"""States that go from batch to batch: what is kept, where, and that weights stay shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.decoding import step_model
from keras_seq.heads import NextToken, Tokens
from keras_seq.layers import CarriedStates, can_carry, carry_states, forget_states

IDS = np.random.default_rng(0).integers(5, 20, (2, 12)).astype("int32")
ONES, NONE = np.ones(2, "int32"), np.zeros(2, "int32")
SLOTS = np.array([3, 1], "int32")


def network(name: str, **options: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    head = NextToken(Tokens(20, 8))
    return keras_seq.build(name, inputs={"tokens": (None,)}, head=head, width=8, **options)


def logits(model: keras.Model, tokens: np.ndarray, **where: np.ndarray) -> np.ndarray:
    return np.asarray(model({"tokens": tokens, **where}, training=False)["logits"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rnn", {}),
        ("gru", {"depth": 2, "residual": True, "dropout": 0.1}),
        ("lstm", {"depth": 2, "layer_norm": True}),
    ],
)
def test_pieces_are_the_whole(name: str, options: dict[str, Any]) -> None:
    plain = network(name, **options)
    carried = carry_states(plain, slots=5)
    whole = logits(plain, IDS)
    first = logits(carried, IDS[:, :5], slots=SLOTS, fresh=ONES)
    # Another use in between names other slots.
    logits(carried, IDS[:, ::-1], slots=np.array([0, 4], "int32"), fresh=NONE)
    second = logits(carried, IDS[:, 5:], slots=SLOTS, fresh=NONE)
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, atol=1e-6)
    anew = logits(carried, IDS, slots=SLOTS, fresh=ONES)
    np.testing.assert_allclose(anew, whole, atol=1e-6)


def test_rows_go_on_by_slot_not_by_order() -> None:
    plain = network("gru")
    carried = carry_states(plain, slots=5)
    logits(carried, IDS[:, :5], slots=SLOTS, fresh=ONES)
    second = logits(carried, IDS[::-1, 5:], slots=SLOTS[::-1], fresh=np.array([0, 1], "int32"))
    np.testing.assert_allclose(second[0], logits(plain, IDS)[1, 5:], atol=1e-6)
    np.testing.assert_allclose(second[1], logits(plain, IDS[:, 5:])[0], atol=1e-6)


def test_padding_leaves_the_state_alone() -> None:
    plain = network("lstm")
    carried = carry_states(plain, slots=5)
    padded = np.concatenate([IDS[:, :5], np.zeros((2, 3), "int32")], 1)
    logits(carried, padded, slots=SLOTS, fresh=ONES)
    second = logits(carried, IDS[:, 5:], slots=SLOTS, fresh=NONE)
    np.testing.assert_allclose(second, logits(plain, IDS)[:, 5:], atol=1e-6)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_the_stateless_network_shares_the_weights(name: str, tmp_path: Path) -> None:
    plain = network(name, depth=2)
    carried = carry_states(plain, slots=5)
    assert carried.count_params() > plain.count_params()
    ours, theirs = (sorted(id(v) for v in m.trainable_variables) for m in (plain, carried))
    assert ours == theirs
    back = forget_states(carried)
    assert list(back.input) == ["tokens"]
    assert back.name == carried.name == plain.name
    np.testing.assert_array_equal(logits(back, IDS), logits(plain, IDS))
    assert forget_states(plain) is plain
    back.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not any(isinstance(layer, CarriedStates) for layer in loaded.layers)
    np.testing.assert_allclose(logits(loaded, IDS), logits(plain, IDS), atol=1e-6)
    assert any("hidden" in key for key in step_model(back, length=8).output)


def test_it_saves_with_its_states(tmp_path: Path) -> None:
    carried = carry_states(network("lstm"), slots=5)
    logits(carried, IDS[:, :5], slots=SLOTS, fresh=ONES)
    carried.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    a, b = (logits(m, IDS[:, 5:], slots=SLOTS, fresh=NONE) for m in (carried, loaded))
    np.testing.assert_allclose(a, b, atol=1e-6)
    layer = loaded.get_layer("lstm_0")
    assert layer.get_config()["slots"] == 5
    assert CarriedStates.from_config(layer.get_config()).layer.units == 8


def test_what_cannot_be_carried_is_refused() -> None:
    assert not can_carry(network("gru", bidirectional=True))
    assert not can_carry(network("tcn"))
    with pytest.raises(ValueError, match="no recurrent layers"):
        carry_states(network("gpt", depth=1, heads=2))
    with pytest.raises(ValueError, match="returns sequences"):
        CarriedStates(keras.layers.GRU(4))


def test_half_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        carried = carry_states(network("gru"), slots=5)
    finally:
        keras.config.set_dtype_policy("float32")
    logits(carried, IDS, slots=SLOTS, fresh=ONES)
    kept = carried.get_layer("gru_0").kept[0]
    assert str(kept.dtype) == "float32"
    assert np.abs(np.asarray(kept)[SLOTS]).min() > 0
