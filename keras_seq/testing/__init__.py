"""Checkers for the authors of layers and architectures, ours and those of plugins.

`check_layer`, `check_model` and `check_architecture` try every property that the rest of the
package relies on, go on after a failure, and raise one `AssertionError` that lists them all. The
functions `*_checks` give the same properties one by one, for `pytest.mark.parametrize`.

Example:
    >>> import keras, numpy as np
    >>> from keras_seq.testing import check_layer
    >>> layer = keras.layers.Dense(4, name="dense")
    >>> report = check_layer(layer, np.ones((2, 5, 3), "float32"), checks=["rows"])
    >>> print(report)
    dense: 1 of 1 checks passed
      passed  rows
"""

from __future__ import annotations

from keras_seq.testing.architectures import architecture_checks, check_architecture
from keras_seq.testing.layers import check_layer, layer_checks
from keras_seq.testing.models import check_model, model_checks
from keras_seq.testing.report import CheckFailure, Checks, Report, Result, run_checks
from keras_seq.testing.subject import outputs_in_fresh_process

__all__ = [
    "CheckFailure",
    "Checks",
    "Report",
    "Result",
    "architecture_checks",
    "check_architecture",
    "check_layer",
    "check_model",
    "layer_checks",
    "model_checks",
    "outputs_in_fresh_process",
    "run_checks",
]
