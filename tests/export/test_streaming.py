"""A stream is the whole sequence, step by step: in Keras, in a SavedModel, in a LiteRT file."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose

import keras_seq
from keras_seq.errors import UserError
from keras_seq.export import ExportError, export
from keras_seq.export import litert as litert_exporter
from keras_seq.export import saved_model as saved_model_exporter
from keras_seq.export.exporter import workspace
from keras_seq.export.saved_model import write_saved_model
from keras_seq.export.stream_loop import stream
from keras_seq.export.streaming import plan_stream, stream_model
from keras_seq.heads import Characters, Forecast, Label, NextToken, TokenLabels, Tokens
from keras_seq.layers import (
    ApplyMask,
    LearnedPositions,
    MultiHeadAttention,
    Pooling,
    SlidingWindowAttention,
    TemporalBlock,
    TransformerBlock,
)
from keras_seq.models import resolve

T, D, V = 12, 3, 20

CAUSAL = [
    name
    for name in keras_seq.architectures.names()
    if keras_seq.architectures.origin(name) == "keras_seq"
    and "causal" in getattr(keras_seq.architectures.get(name), "tags", ())
]
# Options that make an architecture causal which is not so by default.
ALSO = {
    "transformer": {"causal": True, "positions": "rotary"},
    "cnn": {"causal": True, "kernel_size": 3},
}
EVERY = pytest.mark.parametrize("name", [*CAUSAL, *ALSO])
# One with states alone and one with a window stand for all where a file is written each time.
QUICK = ("gru", "gpt")
MOST = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in (*CAUSAL, *ALSO)]
# One of each kind of state stands for all: a vector, a buffer, a complex one, a window.
KINDS = ("gru", "tcn", "s4d", "gpt")
# On a device those and one with two states; the files of all are proved as they are written.
FILES = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in (*KINDS, "lstm")]


def options(name, **more):
    small = {"width": 8, "depth": 2, "heads": 2, "states": 4, "dropout": 0.1, **more}
    known = resolve(name).parameters
    return {**{k: v for k, v in small.items() if k in known}, **ALSO.get(name, {})}


def randomise(model):
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.2 * rng.normal(size=weight.shape))
    return model


def backbone(name, steps=None, **more):
    """The architecture alone: features to the state of each step."""
    x = keras.Input((steps, D), name="series")
    y = resolve(name, **options(name, **more))(x)
    return randomise(keras.Model({"series": x}, {"states": y}, name=name))


def series(rows=3, steps=T):
    return {"series": np.random.default_rng(0).normal(size=(rows, steps, D)).astype("float32")}


def tokens():
    found = np.random.default_rng(0).integers(1, V, (5, T)).astype("int32")
    found[1, 7:] = found[3, 9:] = 0
    return {"tokens": found}


# ---------------------------------------------------------------------------------- in Keras


def test_every_causal_architecture_says_that_it_streams():
    assert len(CAUSAL) >= 5
    for name in keras_seq.architectures.names():
        tags = getattr(keras_seq.architectures.get(name), "tags", frozenset())
        if keras_seq.architectures.origin(name) == "keras_seq":
            assert ("streaming" in tags) == ("causal" in tags), name


@EVERY
def test_steps_are_the_whole(name):
    model, values = backbone(name), series()
    found = stream_model(model, window=T)
    assert found.timed == {"states"} and found.patch == 1
    answers, whole = found.run(values)["states"], np.asarray(model(values)["states"])
    assert np.abs(answers - whole).max() < 1e-6 * max(1.0, np.abs(whole).max())
    assert np.abs(answers).max() > 0.05
    assert all(size is not None for shape in found.states.values() for size in shape)


@pytest.mark.parametrize("name", MOST)
def test_a_pooled_answer_is_that_of_the_steps_so_far(name):
    head = Label(classes=3, pooling="mean+max+attention+first+last")
    inputs = {"features": keras.Input((None, D), name="features")}
    inputs["mask"] = keras.Input((None,), name="mask", dtype="bool")
    model = randomise(keras_seq.build(name, inputs=inputs, head=head, **options(name)))
    found = stream_model(model, window=T)
    assert found.inputs == ("features",) and not found.timed
    x = series()["series"]
    answers = found.run({"features": x})["logits"]
    for n in (1, 2, 7, T):
        whole = model({"features": x[:, :n], "mask": np.ones((3, n), bool)})["logits"]
        assert_allclose(answers[:, n - 1], whole, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", MOST)
def test_tokens_and_their_labels(name):
    for head, output in (
        (TokenLabels(classes=4, tokens=Tokens(V, 8)), "logits"),
        (NextToken(Tokens(V, 8)), "logits"),
    ):
        model = keras_seq.build(name, inputs={"tokens": (None,)}, head=head, **options(name))
        plan = plan_stream(model, tokens(), window=T)
        assert plan.difference < 1e-6 and plan.stream.timed == {output}
        assert sorted(plan.lengths)[-1] == T
        # The interface of every exported language model.
        assert "position" in plan.stream.step.input


def test_words_and_their_characters():
    head = TokenLabels(classes=4, tokens=Tokens(V, 8), characters=Characters(30, width=6))
    inputs = {"tokens": keras.Input((None,), name="tokens", dtype="int32")}
    inputs["characters"] = keras.Input((None, 5), name="characters", dtype="int32")
    model = keras_seq.build("tcn", inputs=inputs, head=head, **options("tcn"))
    letters = np.random.default_rng(1).integers(0, 30, (5, T, 5)).astype("int32")
    plan = plan_stream(randomise(model), {**tokens(), "characters": letters})
    assert plan.difference < 1e-6 and plan.stream.inputs == ("tokens", "characters")


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("patch", [1, 4])
def test_forecasts(independent, patch):
    """A call takes a patch; the channels of an example are series of their own."""
    head = Forecast(horizon=5, normalize=None, patch=patch, channel_independent=independent)
    for name in ("gru", "gpt"):
        model = keras_seq.build(name, inputs=(T, D), head=head, **options(name))
        plan = plan_stream(randomise(model), series())
        found = plan.stream
        assert found.patch == patch and plan.lengths.tolist() == [T // patch] * 3
        assert plan.difference < 1e-6
        assert found.window == (T // patch if name == "gpt" else None)
        assert all(s[0] == D for s in found.states.values()) == independent
        assert plan.steps["forecast"].shape[2:] == (5, D)


def test_a_network_inside_a_network_and_two_of_them():
    """What a task ships: scaled inputs, a trained network inside; an ensemble holds several."""
    x = keras.Input((T, D), name="series")
    scaled = keras.layers.Normalization(mean=[1.0] * D, variance=[4.0] * D)(x)
    members = [
        keras.Model(m.input, m.output, name=f"member_{i}")({"series": scaled})["states"]
        for i, m in enumerate((backbone("gru", T), backbone("gru", T), backbone("tcn", T)))
    ]
    model = keras.Model({"series": x}, {"mean": keras.layers.Average()(members)})
    plan = plan_stream(model, series())
    assert plan.difference < 1e-6
    assert {"gru_0_hidden", "member_1_gru_0_hidden", "block_0_past_0"} <= set(plan.stream.states)


def test_states_stay_in_32_bits():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = backbone("gpt")
        found = stream_model(model, window=T)
        answers = found.run(series())["states"]
        whole = np.asarray(ops.cast(model(series())["states"], "float32"))
    finally:
        keras.config.set_dtype_policy("float32")
    assert {x.dtype for n, x in found.step.output.items() if n in found.states} == {"float32"}
    assert_allclose(np.asarray(answers, "float32"), whole, atol=0.1)


# --------------------------------------------------------------------------------- windows


def banded(model, window):
    """The same model, each step of whose attention sees itself and the `window` - 1 before it."""
    steps = model.input["series"].shape[1]
    band = np.tril(np.triu(np.ones((steps, steps), bool), 1 - window))[None]

    def call(layer, *args, **kwargs):
        if isinstance(layer, (MultiHeadAttention, TransformerBlock)):
            kwargs["mask"] = band
        return layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=lambda x: x, call_function=call)


@pytest.mark.parametrize("window", [1, 5])
@pytest.mark.parametrize("name", ["gpt", "transformer"])
def test_beyond_the_window_older_steps_are_forgotten(name, window):
    model, values = backbone(name, 2 * T), series(steps=2 * T)
    found = stream_model(model, window=window)
    answers = found.run(values)["states"]
    expected = banded(model, window)(values)["states"]
    assert_allclose(answers, expected, atol=2e-6, rtol=0)
    whole = np.asarray(model(values)["states"])
    assert_allclose(answers[:, :window], whole[:, :window], atol=1e-6)
    assert np.abs(answers - whole)[:, window + 1 :].max() > 1e-3
    assert found.window == window and found.most_position == window
    sizes = [shape[1] for name, shape in found.states.items()]
    assert sizes == [window] * 4


ATTENTION = {
    "relative": {"bias": "relative"},
    "alibi": {"bias": "alibi"},
    "grouped": {"kv_heads": 1, "rotary": True, "qk_norm": True},
}


@pytest.mark.parametrize("form", ATTENTION)
def test_windows_of_attention(form):
    x = keras.Input((T, 8), name="series")
    y, _ = MultiHeadAttention(4 if form == "grouped" else 2, causal=True, **ATTENTION[form])(x)
    model = randomise(keras.Model({"series": x}, {"y": y}))
    values = {"series": np.random.default_rng(2).normal(size=(2, T, 8)).astype("float32")}
    for window in (4, T):
        answers = stream_model(model, window=window).run(values)["y"]
        assert_allclose(answers, banded(model, window)(values)["y"], atol=1e-6)


def test_attention_that_slides_already():
    x = keras.Input((T, 8), name="series")
    y = SlidingWindowAttention(2, window=3, causal=True, rotary=True)(x)
    model = keras.Model({"series": x}, {"y": y})
    values = {"series": np.random.default_rng(2).normal(size=(2, T, 8)).astype("float32")}
    for window in (4, T):  # its own step and the 3 before it
        assert_allclose(
            stream_model(model, window=window).run(values)["y"], model(values)["y"], atol=1e-6
        )


def test_positions_that_end():
    """Waves are known up to a length; the stream says so, and is not proved beyond."""
    x = keras.Input((T, D), name="series")
    y = resolve("transformer", width=8, heads=2, causal=True)(x)
    plan = plan_stream(keras.Model({"series": x}, {"y": y}), series())
    assert plan.stream.most_steps == T and plan.stream.most_position is None
    assert plan.steps["y"].shape[1] == T and plan.difference < 1e-6


# --------------------------------------------------------------------------- what cannot stream


def two_calls():
    layer = keras.layers.GRU(4, return_sequences=True, name="twice")
    x = keras.Input((T, 4), name="series")
    return keras.Model({"series": x}, {"y": layer(layer(x))})


def one(layer, steps=T):
    x = keras.Input((steps, D), name="series")
    y = layer(x)
    return keras.Model({"series": x}, {"y": y[0] if isinstance(y, (tuple, list)) else y})


def built(name, head, steps=T, **more):
    return keras_seq.build(name, inputs=(steps, D), head=head, **{**options(name), **more})


REFUSED = {
    "both ways": (lambda: backbone("lstm", bidirectional=True), "lstm_0_both_ways.*the end too"),
    "backwards": (lambda: one(keras.layers.GRU(4, go_backwards=True)), "reads from the end"),
    "window norm": (lambda: built("gru", Forecast(5, patch=1)), "--normalize none"),
    "learned positions": (lambda: one(LearnedPositions(T)), "a stream has no end"),
    "not causal": (lambda: one(MultiHeadAttention(1)), "sees what comes after a step"),
    "flat": (
        lambda: built("gru", Forecast(5, normalize=None, patch=1, pooling="flatten")),
        "all steps of a sequence at once",
    ),
    "uneven patches": (
        lambda: built("gru", Forecast(5, normalize=None, patch=5)),
        "patches that divide the sequence",
    ),
    "crf": (
        lambda: crf(),
        "probabilities of a CRF look at the whole|only at the end",
    ),
    "centred": (lambda: one(keras.layers.Conv1D(4, 3, padding="same")), "looks at other steps"),
    "strided": (lambda: one(keras.layers.Conv1D(4, 1, strides=2)), "looks at other steps"),
    "averaged": (lambda: one(keras.layers.GlobalAveragePooling1D()), "looks at other steps"),
    "twice": (two_calls, "calls it twice"),
    "states": (lambda: one(keras.layers.GRU(4, return_state=True)), "its state besides"),
}


def crf():
    from keras_seq.layers import ViterbiDecode

    head = TokenLabels(classes=3, tokens=Tokens(V, 8), crf=True)
    inner = keras_seq.build("gru", inputs={"tokens": (None,)}, head=head, width=8)
    x = keras.Input((None,), name="tokens", dtype="int32")
    tags = ViterbiDecode(name="tags")(inner({"tokens": x})["potentials"])
    return keras.Model({"tokens": x}, {"tags": tags})


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_stream_says_why(case):
    make, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        stream_model(make())
    assert "cannot be streamed" in str(caught.value)


def test_inputs_that_belong_to_no_step():
    x, index = keras.Input((T, D), name="series"), keras.Input((), name="time_index")
    model = keras.Model({"series": x, "time_index": index}, {"y": x + index[:, None, None]})
    with pytest.raises(UserError, match="'time_index' has no axis of time"):
        stream_model(model)
    with pytest.raises(UserError, match="window is 0"):
        stream_model(backbone("gpt"), window=0)
    head = Forecast(5, normalize=None, patch=1)
    with pytest.raises(UserError, match=f"window of 4 steps is shorter .* --window {T}"):
        plan_stream(built("gpt", head), series(), window=4)
    with pytest.raises(UserError, match="no sample has two real steps"):
        plan_stream(
            keras_seq.build(
                "gru", inputs={"tokens": (None,)}, head=NextToken(Tokens(V, 8)), width=8
            ),
            {"tokens": np.zeros((2, 4), "int32")},
        )


@pytest.mark.parametrize("what", ["turned", "summed", "first"])
def test_a_step_that_is_overlooked_is_found(what):
    """Operations that mix steps where nothing in the graph says so: the numbers do."""
    x = keras.Input((T, D), name="series")
    y = {
        "turned": lambda: ops.flip(x, axis=1),
        "summed": lambda: ops.cumsum(x, axis=1),
        "first": lambda: x - x[:, :1],
    }[what]()
    with pytest.raises(ExportError, match="do not add up to the whole"):
        plan_stream(keras.Model({"series": x}, {"y": y}), series())


# ------------------------------------------------------------------------------------ in files


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Each architecture once, with its report: whoever asks first pays."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("streams") / name
            model = backbone(name)
            report = export(
                model,
                folder,
                formats=("saved_model", "litert"),
                samples=series(),
                streaming=True,
                window=T - 4,
            )
            made[name] = model, folder, report
        return made[name]

    return get


@pytest.mark.parametrize("name", MOST)
def test_files_stream_as_the_whole(exported, name):
    _, folder, report = exported(name)
    assert report["streaming"]["relative_difference"] < 1e-6
    assert json.loads((folder / "parity.json").read_text())["streaming"] == report["streaming"]
    for form in ("saved_model", "litert"):
        entry = report["formats"][form]["streaming"]
        assert entry["status"] == "passed" and entry["relative_difference"] < 1e-6
        assert entry["relative_difference_to_step"] < 1e-6 and entry["sequences"] == 3
        assert "step" in report["formats"][form]["signatures"]
        assert report["formats"][form]["endpoints"]["step"]["status"] == "passed"
    assert report["formats"]["litert"]["flex"] is False


@pytest.mark.parametrize("name", FILES)
def test_a_device_streams_with_numpy_alone(exported, name):
    """Through the interpreter itself, and not through our report: the card's own lines."""
    from ai_edge_litert.interpreter import Interpreter

    model, folder, report = exported(name)
    step = Interpreter(str(folder / "litert/model_float32.tflite")).get_signature_runner("step")
    shapes = report["streaming"]["states"]
    states = {name: np.zeros((1, *shape), "float32") for name, shape in shapes.items()}
    x = series(1, T - 4)["series"]
    whole = np.asarray(model({"series": x})["states"])
    for t in range(T - 4):
        count = {"position": np.array([t], "int32")} if report["streaming"]["counts"] else {}
        found = step(series=x[:, t : t + 1], **count, **states)
        scale = max(1.0, np.abs(whole).max())
        assert np.abs(found["states"] - whole[:, t]).max() < 1e-6 * scale
        states = {name: np.array(found[name]) for name in states}
    card = (folder / "README.md").read_text()
    assert "## Streaming" in card and "get_signature_runner('step')" in card
    assert ("Attention sees the last 8 steps" in card) == (report["streaming"]["window"] == 8)


# Both the whole and the steps of a state space that remembers thousands of steps are about 1e-6 of
# the output's scale off what float64 gives: they agree no better than that.
DRIFT = {"s4d": 3e-6}


def drift(name, exporter, file, write):
    """Streams 10,000 steps through a file: what comes last, what was to come, and the details."""
    steps, window = 10_000, 8
    keras.utils.set_random_seed(3)
    x = keras.Input((None, D), name="series")
    single = {"depth": 1} if "heads" in resolve(name).parameters else {}
    y = resolve(name, **{**options(name), **single})(x)
    model = keras.Model({"series": x}, {"states": y}, name=name)
    plan = plan_stream(model, series(), window=window)
    values = np.random.default_rng(5).normal(size=(1, steps, D)).astype("float32")
    # One layer of attention sees a window; anything else the whole sequence.
    seen = values[:, -window:] if plan.stream.window else values
    expected = model.predict({"series": seen}, verbose=0)["states"][0, -1]
    with workspace():
        write(model, file, plan.endpoint((exporter.name,)))
        found, details = exporter.stream(
            file,
            "step",
            plan.stream.pieces({"series": values}),
            {key: list(shape) for key, shape in plan.stream.states.items()},
            plan.stream.most_position,
            (),
        )
    assert found["states"].shape[:2] == (1, steps)
    return found["states"][0, -1], expected, details


@pytest.mark.parametrize("name", KINDS)
def test_ten_thousand_steps_on_a_device(name, tmp_path):
    """No drift, and no memory that grows."""

    def write(model, file, endpoint):
        litert_exporter.write(model, file, series(), endpoints=[endpoint])

    last, expected, details = drift(name, litert_exporter, tmp_path / "m.tflite", write)
    assert_allclose(last, expected, atol=DRIFT.get(name, 1e-6), rtol=0)
    assert details["memory_growth_mb"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_ten_thousand_steps_of_a_saved_model(name, tmp_path):
    """TensorFlow's arithmetic is Keras's; what is in question is its loop and its memory."""

    def write(model, folder, endpoint):
        write_saved_model(model, folder, endpoints=[endpoint])

    last, expected, details = drift(name, saved_model_exporter, tmp_path / "1", write)
    assert_allclose(last, expected, atol=DRIFT.get(name, 1e-6), rtol=0)
    assert details["memory_growth_mb"] < 4


def test_a_file_that_streams_wrongly_is_not_shipped(tmp_path, monkeypatch):
    from keras_seq.registry import exporters

    model, place = backbone("gru"), tmp_path / "m"
    real = litert_exporter.stream

    def late(*args):
        found, details = real(*args)
        return {name: np.roll(value, 1, axis=1) for name, value in found.items()}, details

    wrong = dataclasses.replace(litert_exporter, stream=late)
    monkeypatch.setattr(exporters, "get", lambda name: wrong)
    with pytest.raises(ExportError, match="litert: the stream of 'step' differs from the whole"):
        export(model, place, formats="litert", samples=series(), streaming=True)
    assert not place.exists()


def test_a_step_that_is_wrong_is_not_shipped(tmp_path, monkeypatch):
    right = TemporalBlock.step

    def wrong(self, x, states, position=None):
        y, after = right(self, x, states, position)
        return y, {name: ops.roll(value, 1, axis=1) for name, value in after.items()}

    monkeypatch.setattr(TemporalBlock, "step", wrong)
    with pytest.raises(ExportError, match="do not add up to the whole"):
        export(backbone("tcn"), tmp_path / "m", formats="litert", samples=series(), streaming=True)
    assert not (tmp_path / "m").exists()


def test_formats_that_hold_no_step(tmp_path):
    with pytest.raises(UserError, match=r"none of the formats keras holds a step .* saved_model"):
        export(backbone("gru"), tmp_path / "m", formats="keras", samples=series(), streaming=True)


def test_a_stream_counts_up_to_the_window():
    seen = []

    def call(given):
        seen.append(int(given["position"][0]))
        return {"y": given["x"], "s": given["s"] + 1}

    found, details = stream(
        call, {"x": np.zeros((1, 6))}, {"s": np.zeros(1)}, position=True, most_position=3
    )
    assert seen == [0, 1, 2, 3, 3, 3] and found["y"].shape == (1, 6)
    assert set(details) == {"latency_ms", "memory_growth_mb"}


# ------------------------------------------------------------------------------ steps of layers


def test_the_mean_of_a_long_stream_keeps_its_digits():
    values = np.random.default_rng(0).normal(1000, 1, 20_000).astype("float32")
    layer = Pooling("mean")
    layer.build((None, None, 1))
    states = {k: ops.zeros((1, *s)) for k, s in layer.step_shapes(1).items()}
    import tensorflow as tf

    @tf.function
    def run(x):
        return tf.scan(lambda s, v: layer.step(tf.reshape(v, (1, 1, 1)), s)[1], x, states)

    states = {name: np.asarray(value) for name, value in run(values).items()}
    means = np.cumsum(values, dtype="float64") / np.arange(1, len(values) + 1)
    assert np.abs(states["mean"][:, 0, 0, 0] - means).max() < 1e-4  # 1e-7 of it
    assert states["count"][-1, 0, 0] == len(values)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("size", "dilation"), [(1, 1), (3, 1), (3, 4)])
def test_causal_convolutions(groups, size, dilation):
    layer = keras.layers.Conv1D(
        4, size, padding="causal", dilation_rate=dilation, groups=groups, activation="tanh"
    )
    x = keras.Input((T, 4), name="series")
    model = randomise(keras.Model({"series": x}, {"y": ApplyMask()(layer(x))}))
    values = {"series": np.random.default_rng(2).normal(size=(2, T, 4)).astype("float32")}
    found = stream_model(model)
    assert_allclose(found.run(values)["y"], model(values)["y"], atol=1e-6)
    assert [shape[0] for shape in found.states.values()] == ([(size - 1) * dilation] * (size > 1))


# ---------------------------------------------------------------------------- the command line


def command(capsys, *words):
    from keras_seq.__main__ import main

    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, " ".join(printed.err.split())


@pytest.mark.slow
def test_a_forecaster_from_the_command_line(capsys, series_csv, tmp_path):
    common = (
        "compare", "forecasting", "--data", series_csv, "--lookback", "24", "--horizon", "6",
        "--architectures", "gru", "--parameters", "2000", "--epochs", "1", "--patch", "4",
        "--export", "none", "--track", "none",
    )  # fmt: skip
    for normalize in ("none", "mean"):
        code, _, error = command(
            capsys, *common, "--normalize", normalize, "--out", tmp_path / normalize
        )
        assert code == 0, error
    run, shipped, other = tmp_path / "none/gru/0", tmp_path / "shipped", tmp_path / "other"
    export_one = ("export", run, "--to", "litert", "--streaming", "--out", shipped)
    code, out, error = command(capsys, *export_one)
    assert code == 0, error
    assert "from the whole sequence" in out
    report = json.loads((shipped / "parity.json").read_text())
    entry = report["formats"]["litert"]["streaming"]
    assert entry["status"] == "passed" and report["streaming"]["steps_of_a_call"] == 4
    assert report["streaming"]["outputs"] == ["forecast"]
    assert "--streaming" in (shipped / "README.md").read_text()
    run = tmp_path / "mean/gru/0"
    code, _, error = command(capsys, "export", run, "--streaming", "--out", other)
    assert code == 2 and "--normalize none" in error and not other.exists()
    code, _, error = command(capsys, "export", run, "--window", "8", "--out", other)
    assert code == 2 and "give --streaming too" in error


@pytest.mark.slow
def test_a_language_model_streams_and_still_writes(capsys, tmp_path):
    lines = [f"the cat number {i} sat on mat number {i * 7 % 13}" for i in range(400)]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n")
    code, _, error = command(
        capsys, "compare", "language_model", "--data", tmp_path / "text.txt",
        "--tokenizer", "characters", "--context", "24", "--architectures", "gpt",
        "--set", "depth=1", "--set", "width=16", "--epochs", "1", "--export", "none",
        "--track", "none", "--out", tmp_path / "runs",
    )  # fmt: skip
    assert code == 0, error
    run, shipped = tmp_path / "runs/gpt/0", tmp_path / "shipped"
    words = ("--streaming", "--window", "16", "--out", shipped)
    code, _, error = command(capsys, "export", run, "--to", "litert,saved_model", *words)
    assert code == 0, error
    report = json.loads((shipped / "parity.json").read_text())
    assert report["streaming"]["window"] == 16 and report["streaming"]["counts"]
    for form in ("litert", "saved_model"):
        assert report["formats"][form]["streaming"]["relative_difference"] < 1e-5
    code, out, error = command(capsys, "generate", shipped, "--prompt", "the", "--length", "9")
    assert code == 0, error
    assert out.startswith("the") and len(out.strip("\n")) == 12
