"""Position layers against formulas written out."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from keras_seq.layers import (
    LearnedPositions,
    RotaryPositions,
    SinusoidalPositions,
    rotary_table,
    sinusoid_table,
)


def test_sinusoids_by_the_papers_formula():
    table = sinusoid_table(50, 6)
    for position in (0, 1, 7, 49):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert table[position, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)


def test_sinusoids_of_an_odd_width():
    assert_allclose(sinusoid_table(4, 5)[:, 4], np.sin(np.arange(4) / 10000**0.8), atol=1e-6)


def test_sinusoidal_layer_adds_the_table():
    x = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
    assert_allclose(SinusoidalPositions()(x), x + sinusoid_table(4, 6), atol=1e-6)


def test_learned_layer_adds_the_first_rows_and_learns_them():
    x = np.zeros((2, 4, 6), "float32")
    layer = LearnedPositions(max_length=9)
    y = layer(x)
    assert_allclose(y[0], layer.get_weights()[0][:4])
    assert 0.01 < np.std(layer.get_weights()[0]) < 0.03
    assert len(layer.trainable_weights) == 1


def test_rotary_layer_turns_complex_numbers():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 8)).astype("float32")
    z = x[..., :4] + 1j * x[..., 4:]
    z = z * np.exp(1j * np.arange(5)[:, None] / 10000 ** (np.arange(4) / 4))
    y = RotaryPositions()(x)
    assert_allclose(y, np.concatenate([z.real, z.imag], -1), atol=1e-5)
    assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)


def test_rotary_base_slows_the_turns():
    assert_allclose(rotary_table(3, 4, base=100.0), [[0, 0], [1, 0.1], [2, 0.2]], atol=1e-6)


@pytest.mark.parametrize("cls", [SinusoidalPositions, LearnedPositions])
def test_open_length(cls):
    x = keras.Input((None, 4))
    model = keras.Model(x, cls(max_length=16)(x))
    for steps in (1, 5, 16):
        assert model(np.zeros((2, steps, 4), "float32")).shape == (2, steps, 4)
    short, long = (np.asarray(model(np.zeros((1, t, 4), "float32"))) for t in (3, 9))
    assert_allclose(short, long[:, :3])


@pytest.mark.parametrize("cls", [SinusoidalPositions, LearnedPositions, RotaryPositions])
def test_too_long_says_what_to_do(cls):
    shape = (1, 2, 9, 4) if cls is RotaryPositions else (1, 9, 4)
    with pytest.raises(ValueError, match="9 steps and knows 8 positions: set max_length to 9"):
        cls(max_length=8)(np.zeros(shape, "float32"))
    with pytest.raises(ValueError, match="max_length is 0"):
        cls(max_length=0)


def test_rotary_refuses_an_odd_head():
    with pytest.raises(ValueError, match="head width is 3"):
        RotaryPositions()(np.zeros((1, 1, 2, 3), "float32"))
