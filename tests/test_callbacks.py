"""What a run writes for TensorBoard is read back from the event files."""

from __future__ import annotations

import html
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from keras_seq.callbacks import (
    TensorBoard,
    log_scores,
    markdown_table,
    write_experiment,
    write_figures,
)
from keras_seq.callbacks.events import drop, own_files, read, tags
from keras_seq.callbacks.gradients import GradientNorms, trainable_layers

X = np.random.default_rng(0).normal(size=(32, 6, 2)).astype("float32")
Y = X.sum(axis=2)[:, -3:]
BATCH = ({"series": X[:8]}, {"forecast": Y[:8]})
START, END = "_hparams_/session_start_info", "_hparams_/session_end_info"


def make(kind: str = "linear", learning_rate=0.01) -> keras.Model:
    keras.utils.set_random_seed(7)
    series = keras.Input((6, 2), name="series")
    if kind == "lstm":
        hidden = keras.layers.LSTM(4, name="lstm_0")(series)
    else:
        hidden = keras.layers.Flatten(name="flat")(series)
    hidden = keras.layers.Dropout(0.3, name="dropout")(hidden)
    model = keras.Model(
        {"series": series}, {"forecast": keras.layers.Dense(3, name="head")(hidden)}
    )
    model.compile(keras.optimizers.Adam(learning_rate), "mse", metrics={"forecast": ["mae"]})
    return model


def train(model, folder=None, epochs=3, initial_epoch=0, callbacks=(), **options):
    boards = [] if folder is None else [TensorBoard(folder, **options)]
    history = model.fit(
        {"series": X[:24]},
        {"forecast": Y[:24]},
        validation_data=({"series": X[24:]}, {"forecast": Y[24:]}),
        batch_size=8,
        epochs=epochs,
        initial_epoch=initial_epoch,
        verbose=0,
        callbacks=[*boards, *callbacks],
    )
    return history.history


def logged(folder):
    """Returns `{tag: [(step, value), ...]}` of one folder, read by TensorBoard's own reader."""
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    accumulator.Reload()
    return {
        tag: [(e.step, tf.make_ndarray(e.tensor_proto)) for e in accumulator.Tensors(tag)]
        for tag in accumulator.Tags()["tensors"]
    }


def steps(folder, tag):
    return [step for step, _ in logged(folder)[tag]]


def values(folder, tag):
    return [float(value) for _, value in logged(folder)[tag]]


def plugin_data(folder, tag):
    found = []
    for path in own_files(folder):
        for event in read(path):
            for value in event.summary.value:
                if value.tag == tag:
                    content = value.metadata.plugin_data.content
                    found.append(plugin_data_pb2.HParamsPluginData.FromString(content))
    return found


def test_every_epoch_of_every_curve_is_there(tmp_path):
    history = train(make(), tmp_path, gradient_batch=BATCH)
    for part, prefix in (("train", ""), ("validation", "val_")):
        for name in ("loss", "mae"):
            assert steps(tmp_path / part, f"epoch_{name}") == [0, 1, 2]
            np.testing.assert_allclose(
                values(tmp_path / part, f"epoch_{name}"), history[prefix + name], rtol=1e-6
            )
    for tag in ("throughput/examples_per_second", "throughput/steps_per_second"):
        assert steps(tmp_path / "train", tag) == [0, 1, 2]
    # 24 examples in 3 steps: 8 examples a step.
    np.testing.assert_allclose(
        np.divide(
            values(tmp_path / "train", "throughput/examples_per_second"),
            values(tmp_path / "train", "throughput/steps_per_second"),
        ),
        8.0,
        rtol=1e-5,
    )


def test_two_architectures_have_the_same_tags(tmp_path):
    tags = {}
    for kind in ("lstm", "linear"):
        board = {"gradient_batch": BATCH, "hparams": {"architecture": kind}, "card": "text"}
        train(make(kind), tmp_path / kind, epochs=1, **board)
        tags[kind] = {
            part: {tag for tag in logged(tmp_path / kind / part) if "/lstm" not in tag}
            for part in ("", "train", "validation")
        }
    assert tags["lstm"] == tags["linear"]
    assert tags["linear"] == {
        "": {START, "card", "keras"},
        "train": {
            "epoch_loss",
            "epoch_mae",
            "learning_rate",
            "gradient_norm/all",
            "gradient_norm/head",
            "throughput/examples_per_second",
            "throughput/steps_per_second",
        },
        "validation": {"epoch_loss", "epoch_mae"},
    }


def test_learning_rate_of_a_schedule_and_of_a_number(tmp_path):
    # 3 steps an epoch, halved every 3 steps; read after the last step of each epoch.
    halving = keras.optimizers.schedules.ExponentialDecay(0.08, 3, 0.5)
    train(make(learning_rate=halving), tmp_path / "schedule")
    rates = values(tmp_path / "schedule/train", "learning_rate")
    np.testing.assert_allclose(rates, [0.04, 0.02, 0.01], rtol=1e-6)
    train(make(learning_rate=0.03), tmp_path / "number", epochs=1)
    np.testing.assert_allclose(values(tmp_path / "number/train", "learning_rate"), [0.03])


def test_gradient_norms_are_those_of_a_hand_computation():
    # forecast = features W + b with features = flat(x) (no dropout): the loss is the mean of the
    # squared differences E over N windows and 3 steps, so dW = 2 F'E / (3 N), db = 2 sum(E) / (3 N)
    model = make()
    weights, bias = model.get_layer("head").get_weights()
    features = X[:8].reshape(8, -1).astype("float64")
    error = features @ weights + bias - Y[:8]
    by_weights, by_bias = 2 * features.T @ error / 24, 2 * error.sum(axis=0) / 24
    expected = np.sqrt((by_weights**2).sum() + (by_bias**2).sum())
    norms = GradientNorms(model, BATCH)()
    assert norms["head"] == pytest.approx(expected, rel=1e-5)
    assert norms["all"] == pytest.approx(expected, rel=1e-5)


def test_gradient_norms_of_layers_add_up_and_follow_the_tape():
    model = make("lstm")
    measure = GradientNorms(model, BATCH)
    norms = measure()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(BATCH[0], training=False)["forecast"] - Y[:8]))
    found = tape.gradient(loss, [v.value for v in model.get_layer("lstm_0").trainable_variables])
    expected = np.sqrt(sum(float(tf.reduce_sum(g**2)) for g in found))
    assert norms["lstm_0"] == pytest.approx(expected, rel=1e-5)
    assert norms["all"] == pytest.approx(np.hypot(norms["lstm_0"], norms["head"]), rel=1e-6)
    assert measure() == norms  # noise-free
    model.get_layer("head").set_weights([np.ones((4, 3)), np.zeros(3)])
    assert measure()["all"] != norms["all"]  # compiled once, but of the weights as they are now


def test_gradient_norm_of_an_embedding_that_reads_a_row_twice():
    tokens = keras.Input((2,), dtype="int32")
    embedded = keras.layers.Embedding(5, 1, name="embedding")(tokens)
    model = keras.Model(tokens, keras.layers.Flatten()(embedded))
    model.compile("sgd", loss=lambda y, p: keras.ops.sum(p, axis=-1))
    # The loss is the sum of the two rows read: row 3 has gradient 2, not twice a gradient of 1.
    norms = GradientNorms(model, (np.array([[3, 3]], "int32"), np.zeros((1, 2), "float32")))()
    assert norms["embedding"] == pytest.approx(2.0)


def test_layers_of_a_model_within_a_model():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="d")], name="inner")
    outer = keras.Sequential([keras.Input((2,)), inner, keras.layers.Dense(1, name="d")])
    assert {k: len(v) for k, v in trainable_layers(outer).items()} == {"inner/d": 2, "d": 2}
    inner.trainable = False
    assert list(trainable_layers(outer)) == ["d"]


@keras.saving.register_keras_serializable(package="test_callbacks")
class AlwaysNoisy(keras.layers.Layer):
    """Draws random numbers in inference too: the worst case for a callback that looks on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(3)

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seed_generator)


@pytest.mark.parametrize("noisy", [False, True])
def test_training_is_the_same_with_and_without(tmp_path, noisy):
    def run(**options):
        if noisy:
            keras.utils.set_random_seed(1)
            series = keras.Input((6, 2), name="series")
            hidden = AlwaysNoisy()(keras.layers.BatchNormalization()(series))
            hidden = keras.layers.Flatten()(hidden)
            model = keras.Model(
                {"series": series}, {"forecast": keras.layers.Dense(3, name="head")(hidden)}
            )
            model.compile("adam", "mse")
        else:
            model = make("lstm")
        history = train(model, **options)
        return history, [v.numpy() for v in (*model.variables, *model.optimizer.variables)]

    def look(model):
        model.predict({"series": X[:4]}, verbose=0)
        return {"picture": np.zeros((2, 2, 3), np.uint8)}

    plain, watched = run(), run(folder=tmp_path, gradient_batch=BATCH, figures=look, figure_every=1)
    assert plain[0] == watched[0]
    for a, b in zip(plain[1], watched[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_pictures_are_those_of_first_last_and_every_nth_epoch(tmp_path):
    def pictures(model):
        figure = Figure(figsize=(2, 1), dpi=50)
        figure.subplots().plot([0, 1])
        return {"line": figure, "red": np.full((3, 5, 3), [255, 0, 0], np.uint8)}

    train(make(), tmp_path, epochs=6, figures=pictures, figure_every=4)
    found = logged(tmp_path)
    assert [step for step, _ in found["line"]] == [0, 4, 5]
    width, height, png = found["red"][0][1]
    assert (width, height) == (b"5", b"3")
    assert tf.io.decode_png(png).numpy().tolist() == [[[255, 0, 0]] * 5] * 3
    assert found["line"][0][1][:2].tolist() == [b"100", b"50"]


def test_a_picture_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="float64 numbers of shape"):
        train(make(), tmp_path, epochs=1, figures=lambda model: {"a": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="figure_every is 0"):
        TensorBoard(tmp_path, figure_every=0)


def test_graph_names_the_layers(tmp_path):
    train(make("lstm"), tmp_path, epochs=1)
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    # Operations are named model/layer/...; TensorFlow adds a number to a name that is taken.
    scopes = {node.name.split("/")[1] for node in accumulator.Graph().node if "/" in node.name}
    assert {"lstm_0", "head"} <= {scope.removesuffix("_1") for scope in scopes}
    train(make(), tmp_path / "without", epochs=1, graph=False)
    assert logged(tmp_path / "without") == {}


def test_beside_the_callback_of_keras_no_epoch_is_lost(tmp_path):
    # update_freq=100 with 3 steps an epoch switches recording off: its own epochs vanish.
    theirs = keras.callbacks.TensorBoard(tmp_path / "theirs", update_freq=100)
    train(make(), tmp_path / "ours", callbacks=[theirs])
    assert steps(tmp_path / "ours/train", "epoch_loss") == [0, 1, 2]


def test_texts_of_every_epoch_are_of_the_weights_of_that_moment(tmp_path):
    model = make()
    noted = []

    def texts(net):
        noted.append(float(net.get_layer("head").bias.numpy()[0]))
        net.get_layer("dropout").seed_generator.next()  # must not change what follows
        return {"words": f"{noted[-1]:.9f}"}

    train(model, tmp_path, epochs=3, texts=texts)
    assert steps(tmp_path, "words") == [0, 1, 2]
    found = [float(value.item().decode()) for _, value in logged(tmp_path)["words"]]
    np.testing.assert_allclose(found, noted, atol=1e-8)
    assert len(set(noted)) == 3
    alone = make()
    train(alone, epochs=3)
    np.testing.assert_array_equal(alone.get_weights()[0], model.get_weights()[0])


def test_a_table_shows_every_text_as_it_is():
    """What TensorBoard's page makes of it: the cells hold the texts, nothing is formatted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its copy of a library warns of itself
        from tensorboard import plugin_util
    texts = ["a | b", "<unk> & <b>x</b>", "*no* _stress_ `code` \\| #1", "[link](http://x) ~~", ""]
    table = markdown_table(["one", "two | too"], [[t, f"{t}\n{t}"] for t in texts])
    page = plugin_util.markdown_to_safe_html(table)
    cells = [html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", page, flags=re.DOTALL)]
    assert cells == [s for t in texts for s in (t, f"{t} {t}".strip())]
    assert re.findall(r"<th>(.*?)</th>", page) == ["one", "two &#124; too"]


def test_steps_are_batches_where_several_make_an_update(tmp_path):
    model = make()
    optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)
    model.compile(optimizer, "mse", metrics={"forecast": ["mae"]})
    train(model, tmp_path, epochs=2)
    rates = [values(tmp_path / "train", f"throughput/{what}_per_second")
             for what in ("examples", "steps")]  # fmt: skip
    np.testing.assert_allclose(np.divide(*rates), 8.0, rtol=1e-5)


def test_a_resumed_run_holds_each_epoch_once(tmp_path):
    options = {
        "texts": lambda model: {"words": "some"},
        "gradient_batch": BATCH,
        "hparams": {"architecture": "linear", "width": 8},
        "card": "text",
        "figures": lambda model: {"picture": np.zeros((2, 2, 3), np.uint8)},
        "figure_every": 2,
    }
    model = make()
    train(model, tmp_path, epochs=4, **options)  # logs 0 to 3, but is killed ...
    for path in own_files(tmp_path / "train"):
        with open(path, "ab") as file:
            file.write(b"\x18\x00\x00\x00half a record")  # ... while it writes
    before = values(tmp_path / "train", "epoch_loss")
    train(model, tmp_path, epochs=5, initial_epoch=2, **options)
    assert steps(tmp_path / "train", "epoch_loss") == [0, 1, 2, 3, 4]
    assert steps(tmp_path / "validation", "epoch_mae") == [0, 1, 2, 3, 4]
    assert steps(tmp_path / "train", "gradient_norm/all") == [0, 1, 2, 3, 4]
    after = values(tmp_path / "train", "epoch_loss")
    assert after[:2] == before[:2] and after[2] != before[2]
    assert steps(tmp_path, "picture") == [0, 2, 4]
    assert steps(tmp_path, "words") == [0, 1, 2, 3, 4]
    assert len(plugin_data(tmp_path, START)) == 1
    assert steps(tmp_path, "card") == [0]


def test_files_of_others_are_left_alone(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path / "train"))
    with writer.as_default():
        tf.summary.scalar("mine", 1.0, step=0)
    writer.close()
    train(make(), tmp_path, epochs=1)
    assert values(tmp_path / "train", "mine") == [1.0]
    assert drop(tmp_path / "train", lambda step, tag: True) > 0
    assert own_files(tmp_path / "train") == []
    assert list(logged(tmp_path / "train")) == ["mine"]


def test_scores_and_options_of_a_run(tmp_path):
    board = TensorBoard(
        tmp_path, hparams={"architecture": "lstm", "width": np.int64(8), "bidirectional": True}
    )
    make().fit({"series": X}, {"forecast": Y}, epochs=1, verbose=0, callbacks=[board])
    board.log_scores({"mse": 0.5, "mae": 0.25})
    board.log_scores({"mse": 0.75})
    assert values(tmp_path, "score/mse") == [0.75]  # the second time replaces the first
    assert "score/mae" not in logged(tmp_path)
    (start,) = plugin_data(tmp_path, START)
    options = start.session_start_info.hparams
    assert options["architecture"].string_value == "lstm"
    assert options["width"].number_value == 8
    assert options["bidirectional"].bool_value is True
    (end,) = plugin_data(tmp_path, END)
    assert end.session_end_info.end_time_secs >= start.session_start_info.start_time_secs


def test_a_baseline_needs_no_model(tmp_path):
    log_scores(tmp_path, {"architecture": "naive", "period": None}, {"mse": 1.5}, card="# naive")
    log_scores(tmp_path, {"architecture": "naive", "period": None}, {"mse": 1.5})
    found = logged(tmp_path)
    assert set(found) == {START, END, "score/mse", "card"}
    assert b"# naive" in found["card"][0][1].item()
    (start,) = plugin_data(tmp_path, START)
    assert start.session_start_info.hparams["period"].string_value == "None"


def test_experiment_names_its_columns(tmp_path):
    write_experiment(tmp_path, ["a"], ["old"])
    write_experiment(
        tmp_path,
        {
            "architecture": ["lstm", "naive", "lstm"],
            "width": [8, 0.5],
            "mixed": [1, "auto"],
            "parameters": int,
        },
        ["mse"],
    )
    (found,) = plugin_data(tmp_path, "_hparams_/experiment")
    options = {info.name: list(info.domain_discrete) for info in found.experiment.hparam_infos}
    assert options == {
        "architecture": ["lstm", "naive"],
        "width": [0.5, 8.0],
        "mixed": ["1", "auto"],
        "parameters": [],
    }
    assert found.experiment.hparam_infos[3].type == api_pb2.DATA_TYPE_FLOAT64
    assert [info.name.tag for info in found.experiment.metric_infos] == ["score/mse"]


def test_pictures_of_a_comparison_replace_earlier_ones(tmp_path):
    write_experiment(tmp_path, {"architecture": str}, ["mse"])
    picture = np.zeros((4, 6, 3), np.uint8)
    write_figures(tmp_path, {"old": picture})
    write_figures(tmp_path, {"loss": picture, "BLEU by length": picture + 255})
    found = {}
    for path in own_files(tmp_path):
        for event in read(path):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "images":
                    found[value.tag] = tf.io.decode_png(value.tensor.string_val[2]).numpy()
    assert set(found) == {"comparison/loss", "comparison/BLEU by length"}
    assert found["comparison/BLEU by length"].shape == (4, 6, 3)
    assert found["comparison/BLEU by length"].min() == 255
    assert "_hparams_/experiment" in tags(tmp_path)
