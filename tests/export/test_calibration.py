"""int8 is calibrated on what it is shown, cut and padded to the length of the samples."""

from __future__ import annotations

import numpy as np

from keras_seq.export import _as_long_as


def test_as_long_as_the_samples():
    samples = {"tokens": np.ones((2, 3), "int32"), "series": np.ones((2, 2, 4), "float32")}
    others = {
        "tokens": np.arange(10, dtype="int32").reshape(2, 5),
        "series": np.full((5, 1, 4), 7.0, "float32"),
    }
    found = _as_long_as(samples, others)
    np.testing.assert_array_equal(found["tokens"], [[0, 1, 2], [5, 6, 7]])
    assert found["tokens"].dtype == np.int32
    np.testing.assert_array_equal(found["series"][:, 0], 7.0)
    np.testing.assert_array_equal(found["series"][:, 1], 0.0)
    assert found["series"].shape == (5, 2, 4)
