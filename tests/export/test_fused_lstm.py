"""LSTM layers in int8: one operator each, the same numbers, and a state that is set back."""

from __future__ import annotations

import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_seq.export import export
from keras_seq.export.converter import mend_int8
from keras_seq.export.runner import keeps_state, read_operators
from keras_seq.export.signature import inference_form
from keras_seq.layers.recurrent import recurrent_stack

STEPS = 7
MASKS = {
    "none": None,
    "whole": [1, 1, 1, 1, 1, 1, 1],
    "right": [1, 1, 1, 1, 0, 0, 0],
    "left": [0, 0, 1, 1, 1, 1, 1],
    "holes": [0, 1, 0, 1, 1, 0, 1],
    "empty": [0, 0, 0, 0, 0, 0, 0],
}


def lstm_by_hand(layer, x, mask, *, zero_masked):
    """Outputs in the order of reading and the last one, float64: (T, U) and (U,)."""
    kernel, recurrent, bias = (w.numpy().astype("float64") for w in layer.weights)
    if layer.go_backwards:
        x, mask = x[::-1], mask[::-1]
    h = c = held = np.zeros(layer.units)
    outputs = []
    for x_t, real in zip(x.astype("float64"), mask, strict=True):
        if real:
            i, f, g, o = np.split(x_t @ kernel + h @ recurrent + bias, 4)
            c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            h = held = np.tanh(c) / (1 + np.exp(-o))
        outputs.append(held if real or not zero_masked else np.zeros(layer.units))
    return np.array(outputs), h


@pytest.mark.parametrize("zero_masked", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_any_mask_and_direction(name, backwards, zero_masked):
    keras.utils.set_random_seed(3)
    layer = layers.LSTM(3, return_sequences=True, go_backwards=backwards, bias_initializer="normal")
    layer.zero_output_for_mask = zero_masked
    x = np.random.default_rng(5).normal(size=(1, STEPS, 2)).astype("float32")
    mask = None if MASKS[name] is None else np.array([MASKS[name]], bool)
    layer.build(x.shape)
    real = np.ones(STEPS, bool) if mask is None else mask[0]
    outputs, last = lstm_by_hand(layer, x[0], real, zero_masked=zero_masked)
    with inference_form(keras.Sequential([layer]), unroll=True, fuse=True):
        function = tf.function(lambda x: layer(x, mask=mask)).get_concrete_function(x)
        layer.return_sequences = False
        only_last = layer(x, mask=mask)
    kinds = {node.op for node in function.graph.as_graph_def().node}
    assert kinds & {"PartitionedCall", "StatefulPartitionedCall"}, "it was not the fused form"
    np.testing.assert_allclose(function(tf.constant(x))[0], outputs, atol=1e-6)
    np.testing.assert_allclose(only_last[0], last, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "given", "rows"),
    [
        ({}, True, 1),  # a state of one's own
        ({}, False, 2),  # more than one sequence
        ({"activation": "relu"}, False, 1),
        ({"recurrent_activation": "hard_sigmoid"}, False, 1),
        ({"return_state": True}, False, 1),
    ],
)
def test_what_the_operator_cannot_do_is_left_to_the_loop(options, given, rows):
    keras.utils.set_random_seed(3)
    layer = layers.LSTM(3, **options)
    x = np.random.default_rng(5).normal(size=(rows, STEPS, 2)).astype("float32")
    state = [np.full((rows, 3), 0.3, "float32"), np.full((rows, 3), -0.4, "float32")]
    chosen = {"initial_state": state} if given else {}
    before = layer(x, **chosen)
    with inference_form(keras.Sequential([layer]), unroll=True, fuse=True):
        after = layer(x, **chosen)
    for a, b in zip(tf.nest.flatten(before), tf.nest.flatten(after), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert "inner_loop" not in vars(layer), "the layer must be put back as it was"


def reader(bidirectional: bool):
    """Tokens through an LSTM to states, padding is id 0."""
    keras.utils.set_random_seed(4)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    wide = keras.initializers.RandomNormal(stddev=0.5)
    x = layers.Embedding(40, 8, embeddings_initializer=wide)(tokens)
    mask = ops.not_equal(tokens, 0)
    h = recurrent_stack(x, cell="lstm", mask=mask, width=8, bidirectional=bidirectional)
    return keras.Model({"tokens": tokens}, {"states": h})


@pytest.fixture(scope="module", params=[False, True], ids=["one_way", "both_ways"])
def shipped(request, tmp_path_factory):
    generator = np.random.default_rng(2)
    ids = generator.integers(1, 40, size=(64, 40)).astype("int32")
    ids[np.arange(40) >= generator.integers(20, 41, size=64)[:, None]] = 0
    model = reader(request.param)
    folder = tmp_path_factory.mktemp("fused") / "m"
    report = export(model, folder, formats="litert_int8", samples={"tokens": ids})
    answers = np.asarray(model({"tokens": ids}, training=False)["states"])
    return folder, report["formats"]["litert_int8"], ids, answers, 1 + request.param


def test_one_operator_a_layer_and_nothing_in_float(shipped):
    folder, entry, _, _, count = shipped
    operators, _, floating = read_operators(folder / entry["file"])
    assert operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == count
    assert "TANH" not in operators and "WHILE" not in operators
    assert floating == 0


def test_rounding_does_not_add_up(shipped):
    """After 40 steps the states are right to 8 bits, and nothing is cut off."""
    folder, entry, ids, answers, _ = shipped
    step = (answers.max() - answers.min()) / 255
    apart = run(folder / entry["file"], ids) - answers
    assert np.sqrt(np.mean(apart**2)) < 0.6 * step
    assert abs(np.mean(apart)) < 0.05 * step
    assert np.abs(apart).max() < 4 * step
    assert np.abs(apart[ids == 0]).max() == 0.0
    assert entry["status"] == "passed"


def run(file, ids, reset=True):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    call = interpreter.get_signature_runner()
    rows = []
    for row in ids:
        if reset:
            interpreter.reset_all_variables()
        rows.append(np.array(call(tokens=row[None])["states"][0]))
    return np.array(rows)


def test_it_remembers_and_the_card_says_so(shipped):
    folder, entry, ids, _, _ = shipped
    assert entry["keeps_state"] is True and keeps_state(folder / entry["file"])
    same = np.stack([ids[0], ids[0]])
    first, second = run(folder / entry["file"], same)
    np.testing.assert_array_equal(first, second)
    first, second = run(folder / entry["file"], same, reset=False)
    assert np.abs(first - second).max() > 0.01
    card = (folder / "README.md").read_text()
    assert "`litert/model_int8.tflite` remembers" in card
    code = re.search(r"```python\n(.*?)```", card, re.S).group(1)
    assert "interpreter.reset_all_variables()" in code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'states': (1, 40, 8)" in done.stdout


def test_scales_agree_on_both_sides_of_what_moves_bytes(shipped):
    """Read from the file: the state has the scale of the output, a turned row that of the row."""
    from ai_edge_litert import schema_py_generated as schema

    folder, entry, _, _, count = shipped
    content = (folder / entry["file"]).read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    codes = [code.builtinCode for code in model.operatorCodes]
    graph = model.subgraphs[0]

    def scale(number):
        found = graph.tensors[number].quantization
        return found.scale.tolist(), found.zeroPoint.tolist()

    states, turned = 0, 0
    for operator in graph.operators:
        kind = codes[operator.opcodeIndex]
        if kind == schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM:
            assert scale(operator.inputs[18]) == scale(operator.outputs[0])
            assert scale(operator.intermediates[4]) == scale(operator.outputs[0])
            # The store may grow to 10 before the operator cuts it: in 16 bits, by a power of two.
            assert scale(operator.inputs[19]) == ([2.0**-11], [0])
            states += 1
        moved = graph.tensors[operator.outputs[0]].type == schema.TensorType.INT8
        if kind == schema.BuiltinOperator.REVERSE_V2 and moved:
            assert scale(operator.inputs[0]) == scale(operator.outputs[0])
            turned += 1
    assert (states, turned) == (count, count - 1)


def test_a_file_without_faults_stays_as_it_is(tmp_path, dense, rows):
    export(dense, tmp_path / "m", formats="litert_int8", samples=rows)
    content = (tmp_path / "m/litert/model_int8.tflite").read_bytes()
    assert mend_int8(content) == content
    assert not keeps_state(tmp_path / "m/litert/model_int8.tflite")
