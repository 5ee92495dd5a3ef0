"""Names, plugins, and architectures that users bring themselves."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.errors import UserError
from keras_seq.models import resolve, solve_width
from keras_seq.registry import Registry


def test_a_name_taken_twice_is_an_error():
    with pytest.raises(UserError, match=r"'lstm' is taken twice: by keras_seq .* and by mine"):
        keras_seq.architectures.add("lstm", "mine:net", origin="mine")


def test_unknown_names_get_the_nearest():
    with pytest.raises(UserError, match="nearest name is 'transformer'"):
        keras_seq.architectures.get("transfromer")


def test_paths_that_cannot_be_imported():
    with pytest.raises(UserError, match="no_such_module"):
        keras_seq.architectures.get("no_such_module:net")
    with pytest.raises(UserError, match="no_such_name"):
        keras_seq.architectures.get("keras_seq.errors:no_such_name")


def test_added_and_removed():
    registry = Registry("toy", "nobody.toys")
    registry.add("a", max)
    assert registry.get("a") is max
    assert "a" in registry
    registry.remove("a")
    assert "a" not in registry


def test_a_misspelt_option_is_a_type_error_that_names_it():
    with pytest.raises(TypeError, match=r"gru has no option 'dropuot'; did you mean 'dropout'"):
        resolve("gru", dropuot=0.1)
    with pytest.raises(TypeError, match="horizon"):
        resolve("nhits", horizon=3)  # from the head, not from the user


@keras.saving.register_keras_serializable(package="test_registry")
class Decay(keras.layers.Layer):
    """A user's own layer: the exponentially weighted mean of the steps, mapped to a width."""

    def __init__(self, width: int = 8, rate: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.width, self.rate = width, rate
        self.out = keras.layers.Dense(width)

    def call(self, x):
        weights = self.rate ** np.arange(x.shape[1])[::-1]
        return self.out(keras.ops.einsum("btd,t->bd", x, weights.astype("float32")))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "rate": self.rate}


def test_a_users_layer_is_an_architecture():
    """Through the registry, without touching our files; options, save and load included."""
    keras_seq.architectures.add("decay", Decay, origin="test")
    try:
        head = keras_seq.heads.Forecast(horizon=4)
        model = keras_seq.build("decay", inputs=(32, 2), head=head, width=16, rate=0.9)
        assert model.output["forecast"].shape == (None, 4, 2)
        with pytest.raises(TypeError, match="'ratio'"):
            keras_seq.build("decay", inputs=(32, 2), head=head, ratio=0.9)
    finally:
        keras_seq.architectures.remove("decay")


def test_a_users_fit_with_our_builder_only():
    """`model.fit` of Keras, none of our training code."""
    t = np.arange(400)
    series = np.sin(2 * np.pi * t / 12).astype("float32")
    x = np.stack([series[i : i + 24] for i in range(300)])[..., None]
    y = np.stack([series[i + 24 : i + 30] for i in range(300)])[..., None]
    model = keras_seq.build("lstm", inputs=(24, 1), head=keras_seq.heads.Forecast(6), width=16)
    model.compile(keras.optimizers.Adam(0.02), {"forecast": "mse"})
    history = model.fit({"series": x}, {"forecast": y}, epochs=5, verbose=0)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]


@pytest.mark.parametrize("budget", [1, 500, 12_345, 10**6])
def test_solved_width_is_the_largest_that_fits(budget):
    def count(width: int) -> int:
        return 3 * width * width + 7 * width + 11

    width = solve_width(count, budget)
    assert width % 8 == 0
    assert count(width) <= budget or width == 8
    assert count(width + 8) > budget


def test_both_spellings_of_compare_and_export():
    import keras_seq.compare
    import keras_seq.export

    assert callable(keras_seq.compare)
    assert callable(keras_seq.export)
    assert keras_seq.compare.Comparison.__name__ == "Comparison"
