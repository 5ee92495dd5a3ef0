"""The buckets and the slopes against the papers, and the biases step by step."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

from keras_seq.layers import (
    AlibiBias,
    MultiHeadAttention,
    RelativeBias,
    RelativeBiasTable,
    alibi_slopes,
    bucket_table,
)
from keras_seq.layers.relative_bias import bias_between, shared_at

H = 3


def t5_bucket(memory_minus_query: int, buckets: int, max_distance: int, causal: bool) -> int:
    """The rule as T5's authors write it, for one distance."""
    found, n = 0, -memory_minus_query
    if causal:
        n = max(n, 0)
    else:
        buckets //= 2
        found += buckets * (n < 0)
        n = abs(n)
    exact = buckets // 2
    if n < exact:
        return found + n
    log = math.log(np.float32(n) / exact) / math.log(max_distance / exact)
    return found + min(exact + int(np.float32(log) * (buckets - exact)), buckets - 1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20), (6, 5), (64, 1000)])
def test_buckets_are_t5s(buckets, max_distance, causal):
    table = bucket_table(buckets, max_distance, causal=causal)
    expected = [
        t5_bucket(n, buckets, max_distance, causal) for n in range(-max_distance, max_distance + 1)
    ]
    assert_array_equal(table, expected)
    # From the longest distance on nothing changes: clipping the distance is no other rule.
    for n in (max_distance, max_distance + 1, 10 * max_distance):
        assert t5_bucket(-n, buckets, max_distance, causal) == table[0]
        assert t5_bucket(n, buckets, max_distance, causal) == table[-1]


def test_buckets_by_hand():
    both, past = bucket_table(32, 128), bucket_table(32, 128, causal=True)
    # 8 + 8 log(n / 8) / log(16): a bucket more for every factor of the square root of 2.
    before = {0: 0, 1: 1, 7: 7, 8: 8, 11: 8, 12: 9, 15: 9, 16: 10, 32: 12, 64: 14, 91: 15, 128: 15}
    assert {n: both[128 - n] for n in before} == before
    assert [both[128 + n] for n in (1, 7, 8, 16, 128)] == [17, 23, 24, 26, 31]
    # 16 + 16 log(n / 16) / log(8)
    before = {0: 0, 1: 1, 15: 15, 16: 16, 32: 21, 64: 26, 127: 31, 128: 31}
    assert {n: past[128 - n] for n in before} == before
    assert (past[128:] == 0).all()


def test_slopes_by_hand():
    eight = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert_allclose(alibi_slopes(8), eight, rtol=1e-7)
    # Those of 4 heads, and of 8 heads the first and the third.
    assert_allclose(alibi_slopes(6), [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8], rtol=1e-7)
    assert_allclose(alibi_slopes(1), [1 / 256])
    assert len(alibi_slopes(12)) == 12


def relative(causal: bool) -> RelativeBias:
    layer = RelativeBias(H, buckets=8, max_distance=6, causal=causal)
    layer.build()
    layer.set_weights([np.random.default_rng(0).normal(size=(8, H)).astype("float32")])
    return layer


def expected_relative(layer: RelativeBias, query_steps: int, memory_steps: int) -> np.ndarray:
    (table,) = layer.get_weights()
    bias = np.zeros((H, query_steps, memory_steps), "float32")
    for t in range(query_steps):
        for s in range(memory_steps):
            bias[:, t, s] = table[t5_bucket(s - t, 8, 6, layer.causal)]
    return bias


def expected_alibi(causal: bool, query_steps: int, memory_steps: int) -> np.ndarray:
    bias = np.zeros((H, query_steps, memory_steps))
    for h, slope in enumerate([1 / 16, 1 / 256, 1 / 4]):  # of 2 heads, and the first of 4
        for t in range(query_steps):
            for s in range(memory_steps):
                bias[h, t, s] = -slope * (max(t - s, 0) if causal else abs(t - s))
    return bias


@pytest.mark.parametrize("causal", [False, True])
def test_whole_and_at_one_position(causal):
    learned, fixed = relative(causal), AlibiBias(H, causal=causal)
    for layer, expected in (
        (learned, expected_relative(learned, 9, 20)),
        (fixed, expected_alibi(causal, 9, 20)),
    ):
        assert_allclose(layer.between(9, 20), expected, rtol=1e-6)
        position = np.array([8, 0, 3], "int32")
        one = layer.at(position, 20)
        assert one.shape == (3, H, 1, 20)
        assert_allclose(one[:, :, 0], expected[:, position].swapaxes(0, 1), rtol=1e-6)
        scores = np.random.default_rng(1).normal(size=(2, H, 9, 20)).astype("float32")
        assert_allclose(layer(scores), scores + expected, atol=1e-6)


def test_open_lengths():
    scores = keras.Input((H, None, None))
    model = keras.Model(scores, AlibiBias(H)(relative(False)(scores)))
    assert model.output.shape == (None, H, None, None)
    for t, s in ((2, 5), (6, 3)):
        found = model(np.zeros((1, H, t, s), "float32"))[0]
        learned = expected_relative(model.layers[1], t, s)
        assert_allclose(found, learned + expected_alibi(False, t, s), atol=1e-6)


def test_gradient_is_the_sum_over_the_pairs_of_a_bucket():
    layer = relative(False)
    weight = np.random.default_rng(1).normal(size=(H, 4, 9)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer.between(4, 9) * weight)
    expected = np.zeros((8, H))
    for t in range(4):
        for s in range(9):
            expected[t5_bucket(s - t, 8, 6, False)] += weight[:, t, s]
    assert_allclose(
        tf.convert_to_tensor(tape.gradient(loss, layer.table.value)), expected, atol=1e-5
    )


@pytest.mark.parametrize("causal", [False, True])
def test_a_shared_table_is_the_bias_of_a_layer(causal):
    """Between all steps, at one position, and in attention and its steps."""
    alone = relative(causal)
    shared = RelativeBiasTable(H, buckets=8, max_distance=6, causal=causal)
    shared.build()
    shared.set_weights(alone.get_weights())
    table = shared(np.zeros((2, 5, 4), "float32"))
    assert table.shape == (13, H)
    later = np.arange(11)[None, :] - np.arange(9)[:, None]
    assert_array_equal(bias_between(table, later), alone.between(9, 11))
    position = np.array([0, 8])
    assert_array_equal(shared_at(table, position, 10), alone.at(position, 10))
    if not causal:
        return
    x = np.random.default_rng(0).normal(size=(2, 9, 2 * H)).astype("float32")
    plain, own = (MultiHeadAttention(H, causal=True, bias=bias) for bias in (None, "relative"))
    wide = RelativeBiasTable(H, causal=True)  # as many buckets as attention's own
    plain(x), own(x), wide(x)
    own.set_weights([*plain.get_weights(), np.asarray(wide.table)])
    wanted, weights = own(x)
    found = plain(x, distances=wide(x))
    assert_allclose(found[0], wanted, atol=1e-6)
    assert_allclose(found[1], weights, atol=1e-6)
    states = {name: np.zeros((2, H, 9, 2), "float32") for name in ("key", "value")}
    for t in range(9):
        (y, _), states = plain.step(
            x[:, t : t + 1], states, np.full(2, t, "int32"), distances=wide(x)
        )
        assert_allclose(y[:, 0], wanted[:, t], atol=1e-6)


@pytest.mark.parametrize("layer", [RelativeBias(2, buckets=8, causal=True), AlibiBias(5)])
def test_config_round_trip(layer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="buckets is 7: give an even number of at least 4"):
        RelativeBias(2, buckets=7)
    with pytest.raises(ValueError, match="buckets is 0: give an even number of at least 2"):
        RelativeBias(2, buckets=0, causal=True)
    with pytest.raises(ValueError, match=r"the first 8 steps have buckets .* give at least 9"):
        RelativeBias(2, max_distance=8)
    with pytest.raises(ValueError, match="heads is 0"):
        AlibiBias(0)
    with pytest.raises(ValueError, match="has 3 heads and got scores of 2"):
        AlibiBias(3)(np.zeros((1, 2, 4, 4), "float32"))
