"""Batches by number: the same from any start, by several iterators at once, and errors are told."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.data.numbered import numbered_batches
from keras_seq.training import ArrayData

SPEC = ({"x": tf.TensorSpec((None, 2), tf.int32)}, tf.TensorSpec((None,), tf.float32))


def batch(number):
    return {"x": np.full((3, 2), number)}, np.arange(3) + number


def test_structure_types_and_count():
    found = numbered_batches(batch, SPEC, start=4, count=3)
    assert found.element_spec == SPEC
    assert int(found.cardinality()) == 3
    for number, (x, y) in enumerate(found, start=4):
        np.testing.assert_array_equal(x["x"], np.full((3, 2), number))
        np.testing.assert_array_equal(y, [number, number + 1, number + 2])
    assert number == 6


def test_without_a_count_it_has_no_end():
    found = numbered_batches(batch, SPEC)
    assert int(found.cardinality()) == tf.data.INFINITE_CARDINALITY
    assert [int(y[0]) for _, y in found.take(3)] == [0, 1, 2]
    assert [int(y[0]) for _, y in found.take(2)] == [0, 1]  # it starts anew


def test_what_a_batch_raises_is_said():
    def broken(number):
        raise ValueError(f"there is no batch {number}")

    with pytest.raises(tf.errors.InvalidArgumentError, match="there is no batch 7"):
        next(iter(numbered_batches(broken, SPEC, start=7)))


def test_another_structure_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="structure"):
        next(iter(numbered_batches(lambda k: np.zeros(3), SPEC)))


def test_two_iterators_in_different_passes_do_not_disturb_each_other():
    data = ArrayData(np.arange(10), np.arange(10))
    found = data.dataset(4, seed=1)
    want = [x.numpy() for x, _ in found.take(9)]  # three passes
    one, two = iter(found), iter(data.dataset(4, seed=1, start_step=6))
    for step in range(3):
        np.testing.assert_array_equal(next(one)[0], want[step])
        np.testing.assert_array_equal(next(two)[0], want[6 + step])
    assert not np.array_equal(np.concatenate(want[:3]), np.concatenate(want[6:]))
    assert sorted(np.concatenate(want[:3])) == list(range(10))
