"""Text: ids of any length, strings in, a step with its state, files beside, labels that differ."""

from __future__ import annotations

import hashlib
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_seq.errors import UserError
from keras_seq.export import Endpoint, ExportError, export
from keras_seq.export.card import model_card
from keras_seq.export.endpoints import unpadded_rows
from keras_seq.export.parity import judge, labels_that_differ
from keras_seq.export.signature import Signature
from keras_seq.export.workers import as_bytes, read_arrays, read_calls, write_arrays, write_calls
from keras_seq.layers import Pooling
from keras_seq.layers.recurrent import recurrent_stack

WORDS = ("<pad>", "<unk>", "good", "bad", "not", "film")
TEXTS = np.array(
    ["good film", "", "not bad\0", "a film \u05d8\u05d5\u05d1 \U0001f600", "bad " * 9], dtype=object
)


def text_model(vocabulary: int = 300, width: int = 8):
    """Embedding, GRU both ways, attention pooling: open length, padding is id 0."""
    keras.utils.set_random_seed(4)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mask = ops.not_equal(tokens, 0)
    x = keras.layers.Embedding(vocabulary, 16, name="embedding")(tokens)
    h = recurrent_stack(x, cell="gru", mask=mask, width=width, bidirectional=True)
    h = Pooling("attention", name="pooling")(h, mask=mask)
    logits = keras.layers.Dense(3, name="logits")(h) * 4.0
    outputs = {"logits": logits, "probabilities": ops.softmax(logits)}
    return keras.Model({"tokens": tokens}, outputs, name="text")


def token_rows(rows: int = 24, steps: int = 12, vocabulary: int = 300) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(2)
    ids = generator.integers(1, vocabulary, size=(rows, steps)).astype("int32")
    lengths = generator.integers(1, steps + 1, size=rows)
    lengths[0] = steps
    ids[np.arange(steps) >= lengths[:, None]] = 0
    return {"tokens": ids}


class Words(tf.Module):
    """Strings to padded ids, in plain TensorFlow operators."""

    def __init__(self):
        super().__init__()
        values = tf.range(len(WORDS), dtype=tf.int32)
        keys = tf.lookup.KeyValueTensorInitializer(tf.constant(WORDS), values)
        self.table = tf.lookup.StaticHashTable(keys, default_value=1)

    def __call__(self, texts):
        words = tf.strings.split(texts)
        # An empty text is one unknown word.
        words = tf.concat([words, tf.where(words.row_lengths() == 0, "", "<pad>")[:, None]], axis=1)
        longest = tf.maximum(tf.reduce_max(words.row_lengths()) - 1, 1)
        return self.table.lookup(words.to_tensor("<pad>")[:, :longest])


def text_endpoint(model, **changes) -> Endpoint:
    words = Words()

    def call(inputs):
        ids = words(inputs["text"])
        answer = model({"tokens": ids}, training=False)
        return {
            "probabilities": answer["probabilities"],
            "label": tf.argmax(answer["probabilities"], axis=-1, output_type=tf.int32),
            "name": tf.gather(tf.constant(["neg", "neu", "pos"]), tf.argmax(answer["logits"], -1)),
            "tokens": ids,
        }

    expected = {name: value.numpy() for name, value in call({"text": tf.constant(TEXTS)}).items()}
    options = {
        "name": "serving_text",
        "call": call,
        "inputs": {"text": ((None,), "string")},
        "samples": {"text": TEXTS},
        "expected": expected,
        "tracked": (words,),
    }
    return Endpoint(**(options | changes))


def step_endpoint(model, **changes) -> Endpoint:
    """One token and the state in, scores and the new state out: a language model's step."""
    embedding = model.get_layer("embedding")
    keras.utils.set_random_seed(9)
    cell = keras.layers.GRUCell(8)
    cell.build((None, 16))

    def call(inputs):
        x = embedding(inputs["token"])
        h, _ = cell(x, [inputs["state"]])
        count = inputs["count"] + 1
        return {"state": h, "next": tf.argmax(h, axis=-1, output_type=tf.int32), "count": count}

    generator = np.random.default_rng(0)
    samples = {
        "token": generator.integers(0, 300, size=6).astype("int32"),
        "state": generator.normal(size=(6, 8)).astype("float32"),
        "count": np.arange(6, dtype="int32"),
    }
    expected = {
        k: v.numpy() for k, v in call({k: tf.constant(v) for k, v in samples.items()}).items()
    }
    options = {
        "name": "step",
        "call": call,
        "inputs": {
            "token": ((None,), "int32"),
            "state": ((None, 8), "float32"),
            "count": ((None,), "int32"),
        },
        "samples": samples,
        "expected": expected,
        "formats": ("saved_model", "litert", "litert_float16"),
    }
    return Endpoint(**(options | changes))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text") / "reviews"
    model, rows = text_model(), token_rows()
    report = export(
        model,
        folder,
        formats=("saved_model", "litert:all", "keras"),
        samples=rows,
        endpoints=(text_endpoint(model), step_endpoint(model)),
        files={"litert/tokenizer.json": b"{}", "notes.txt": b"\x00\xff"},
    )
    return folder, report, model, rows


def test_every_signature_is_proved(shipped):
    folder, report, _, _ = shipped
    assert json.loads((folder / "parity.json").read_text()) == report
    saved = report["formats"]["saved_model"]
    assert saved["signatures"] == ["serving_default", "serving_text", "step"]
    assert set(saved["endpoints"]) == {"serving_text", "step"}
    assert saved["endpoints"]["serving_text"]["samples"] == len(TEXTS)
    assert saved["endpoints"]["serving_text"]["status"] == "passed"
    assert report["formats"]["litert"]["signatures"] == ["serving_default", "step"]
    assert report["formats"]["litert"]["endpoints"]["step"]["calls"] == 6
    assert report["formats"]["litert_float16"]["endpoints"]["step"]["relative_difference"] > 0
    assert "endpoints" not in report["formats"]["litert_int8"]
    card = (folder / "README.md").read_text()
    assert "| litert | step | token (any) int32, state (any, 8) float32" in card
    assert "tensorflow-text" not in card


def test_strings_go_in_from_disk(shipped):
    folder, _, model, _ = shipped
    loaded = tf.saved_model.load(str(folder / "1"))
    answer = loaded.signatures["serving_text"](text=tf.constant(["not good", "film"]))
    ids = np.array([[4, 2], [5, 0]], dtype="int32")
    np.testing.assert_array_equal(answer["tokens"], ids)
    expected = model({"tokens": ids}, training=False)["probabilities"]
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)


def test_a_step_runs_in_litert_by_hand(shipped):
    from ai_edge_litert.interpreter import Interpreter

    folder, _, model, _ = shipped
    endpoint = step_endpoint(model)
    step = Interpreter(str(folder / "litert/model_float32.tflite")).get_signature_runner("step")
    state = np.zeros((1, 8), "float32")
    wanted = tf.constant(state)
    for i, token in enumerate([3, 250, 7]):
        ids, count = np.array([token], "int32"), np.array([i], "int32")
        state = step(token=ids, state=state, count=count)["state"]
        wanted = endpoint.call({"token": ids, "state": wanted, "count": count})["state"]
    np.testing.assert_allclose(state, wanted, atol=1e-6)


def test_ids_of_any_length(shipped):
    from ai_edge_litert.interpreter import Interpreter

    folder, report, model, _ = shipped
    assert report["inputs"]["tokens"] == {"shape": [None, None], "dtype": "int32"}
    assert report["padding"]["relative_difference"] < 1e-6
    for name in ("saved_model", "litert", "litert_float16", "litert_dynamic"):
        entry = report["formats"][name]["unpadded"]
        assert len(set(entry["lengths"])) == 6
        assert entry["status"] == "passed"
    ids = np.array([[9, 8, 7, 6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2, 1]], dtype="int32")
    call = Interpreter(str(folder / "litert/model_float32.tflite")).get_signature_runner(
        "serving_default"
    )
    expected = model({"tokens": ids}, training=False)["probabilities"]
    np.testing.assert_allclose(call(tokens=ids)["probabilities"], expected, atol=1e-6)


def test_int8_keeps_ids_whole_and_its_length_is_written_down(shipped):
    folder, report, _, _ = shipped
    entry = report["formats"]["litert_int8"]
    assert entry["inputs"] == {"tokens": {"shape": [1, 12], "dtype": "int32"}}
    assert entry["judged_by"] == "labels"
    assert 0 <= entry["labels"]["differ"] <= 1
    card = (folder / "README.md").read_text()
    assert "`litert/model_int8.tflite` takes `tokens` of exactly (1, 12): pad with 0" in card
    assert "labels that differ" in card
    assert "`litert/model_float32.tflite` takes" not in card


def test_files_lie_beside_and_are_in_the_manifest(shipped):
    folder, _, _, _ = shipped
    assert (folder / "litert/tokenizer.json").read_bytes() == b"{}"
    digest = hashlib.sha256(b"\x00\xff").hexdigest()
    assert f"{digest}  notes.txt\n" in (folder / "manifest.sha256").read_text()


def test_the_unrolled_form_of_a_masked_layer_both_ways_is_right():
    """Keras zeroes the outputs of an unrolled backward layer in the wrong order."""
    from keras_seq.export.signature import inference_form

    model, rows = text_model(), token_rows()
    expected = model(rows, training=False)["logits"]
    with inference_form(model, unroll=True):
        unrolled = model(rows, training=False)["logits"]
    np.testing.assert_allclose(unrolled, expected, atol=1e-5)


def test_a_run_and_its_exports_answer_the_same(shipped, tmp_path):
    import shutil

    from keras_seq.runs import open_model

    folder, _, model, rows = shipped
    expected = model(rows, training=False)["probabilities"]
    for kept in ("1", "litert", "keras"):
        shutil.copytree(folder / kept, tmp_path / kept / kept)
        run, names, _ = open_model(tmp_path / kept)
        assert names == ["tokens"]
        # What a reader of files gives is int64.
        answer = run({"tokens": rows["tokens"].astype("int64")})["probabilities"]
        np.testing.assert_allclose(answer, expected, atol=1e-5)


@pytest.fixture()
def tiny():
    return text_model(vocabulary=20), token_rows(rows=3, steps=4, vocabulary=20)


@pytest.mark.parametrize(
    ("output", "change"),
    [
        ("probabilities", lambda v: v + 1e-3),
        ("label", lambda v: np.where(np.arange(len(v)) == 3, v + 1, v)),
        ("name", lambda v: np.where(np.arange(len(v)) == 3, b"neutral", v)),
        ("tokens", lambda v: np.where(v == 5, 6, v)),
    ],
)
def test_a_wrong_endpoint_leaves_nothing(tmp_path, tiny, output, change):
    model, rows = tiny
    right = text_endpoint(model)
    wrong = text_endpoint(model, expected=right.expected | {output: change(right.expected[output])})
    with pytest.raises(ExportError, match=rf"in endpoint 'serving_text': by .* output '{output}'"):
        export(model, tmp_path / "a" / "m", formats="saved_model", samples=rows, endpoints=[wrong])
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_step_leaves_nothing(tmp_path, tiny):
    model, rows = tiny
    model = text_model()
    right = step_endpoint(model, formats=("litert",))
    wrong = step_endpoint(
        model, formats=("litert",), expected=right.expected | {"count": np.zeros(6, "int32")}
    )
    with pytest.raises(ExportError, match="litert differs from the model in endpoint 'step'"):
        export(model, tmp_path / "m", formats="litert", samples=rows, endpoints=[wrong])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_output_and_a_shorter_one_are_seen(tmp_path, tiny):
    model, rows = tiny
    right = text_endpoint(model)
    longer = np.pad(right.expected["tokens"], ((0, 0), (0, 1)))
    for expected in ({"other": right.expected["label"]}, right.expected | {"tokens": longer}):
        wrong = text_endpoint(model, expected=expected)
        with pytest.raises(ExportError, match="serving_text' gives"):
            export(model, tmp_path / "m", formats="saved_model", samples=rows, endpoints=[wrong])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "serving_default"}, "taken or no identifier"),
        ({"name": "two words"}, "taken or no identifier"),
        ({"formats": ("saved_modle",)}, "nearest name is 'saved_model'"),
        ({"formats": ("keras",)}, "one signature only"),
        ({"samples": {"other": TEXTS}}, r"takes \['text'\] and has samples of \['other'\]"),
        ({"samples": {"text": TEXTS[:, None]}}, "is wanted, batch axis first"),
        ({"samples": {"text": TEXTS[:2]}}, "as many rows"),
        ({"expected": {}}, "as many rows"),
    ],
)
def test_wrong_endpoints(tmp_path, tiny, change, message):
    model, rows = tiny
    with pytest.raises(UserError, match=message):
        export(
            model,
            tmp_path / "m",
            formats=("saved_model", "keras"),
            samples=rows,
            endpoints=[text_endpoint(model, **change)],
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["../out", "/tmp/x", "parity.json", "1/x", "keras/model.keras", ""]
)
def test_paths_of_files_that_are_refused(tmp_path, tiny, path):
    model, rows = tiny
    with pytest.raises(UserError, match="another path inside"):
        export(model, tmp_path / "m", formats="keras", samples=rows, files={path: b""})


def test_a_file_goes_with_its_format(tmp_path, tiny):
    model, rows = tiny
    given = {"litert/tokenizer.json": b"old", "keras/readme.txt": b"old"}
    export(model, tmp_path / "m", formats="keras", samples=rows, files=given)
    assert not (tmp_path / "m/litert").exists()
    assert (tmp_path / "m/keras/readme.txt").read_bytes() == b"old"
    export(model, tmp_path / "m", formats="litert", samples=rows, files=given)
    # The float file of the last export would be left with a tokenizer that is not its own.
    new = {"litert/tokenizer.json": b"new"}
    with pytest.raises(UserError, match="needs the old one"):
        export(model, tmp_path / "m", formats="litert_dynamic", samples=rows, files=new, version=2)
    assert (tmp_path / "m/litert/tokenizer.json").read_bytes() == b"old"


def test_a_model_that_minds_its_padding_is_told(tmp_path):
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(20, 4, embeddings_initializer="normal")(tokens)
    model = keras.Model({"tokens": tokens}, {"y": ops.mean(x, axis=1)})
    rows = token_rows(rows=5, steps=6, vocabulary=20)
    report = export(model, tmp_path / "m", formats="litert", samples=rows)
    assert report["padding"]["relative_difference"] > 0.01
    assert "does not ignore padding" in (tmp_path / "m" / "README.md").read_text()


def test_rows_are_cut_where_they_end():
    model = text_model(vocabulary=20)
    ids = np.array([[3, 0, 4, 0], [1, 0, 0, 0], [0, 0, 0, 0], [5, 6, 7, 8]], dtype="int32")
    found = unpadded_rows(Signature(model), {"tokens": ids}, ("tokens",))
    assert (found.indices, found.lengths) == ([1, 0], [1, 3])
    assert [row["tokens"].tolist() for row in found.rows] == [[[1]], [[3, 0, 4]]]
    assert unpadded_rows(Signature(model), {"tokens": ids}, ()).rows == []


def test_labels_that_differ_by_hand():
    several = np.array([[0.9, 0.8], [0.2, 0.7]])
    assert labels_that_differ(several, np.array([[0.9, 0.4], [0.2, 0.7]])) == 0.5
    assert (
        labels_that_differ(np.array([0.2, 0.6, 0.7, 0.9]), np.array([0.6, 0.6, 0.7, 0.9])) == 0.25
    )
    steps = np.eye(2)[np.array([[0, 1, 0], [1, 1, 0]])]
    other = np.eye(2)[np.array([[1, 1, 0], [1, 1, 1]])]
    real = np.array([[True, True, False], [True, True, False]])
    assert labels_that_differ(steps, other) == pytest.approx(2 / 6)
    assert labels_that_differ(steps, other, real) == 0.25


@pytest.mark.parametrize(
    "value",
    [
        np.array(["", "a\0", "\0", "\u05d0\U0001f600", "x" * 100_000], dtype=object),
        np.array([b"\xff\xfe", "text", b""], dtype=object).reshape(3, 1),
        np.array([["a", "bc"]]),
        np.array([], dtype=object),
    ],
)
def test_text_survives_the_trip(tmp_path, value):
    rows = {"text": value, "a\nb/c": np.arange(3), "scalar": np.float32(2.5)}
    got = read_arrays(write_arrays(tmp_path / "a.npz", rows))
    assert list(got) == list(rows)
    assert got["text"].shape == value.shape
    assert got["text"].tolist() == as_bytes(value).tolist()
    assert got["scalar"] == 2.5
    calls = read_calls(write_calls(tmp_path / "b.npz", [rows, {"x/y": np.ones((2, 0))}]))
    assert [list(call) for call in calls] == [list(rows), ["x/y"]]
    assert calls[1]["x/y"].shape == (2, 0)


def test_the_embedding_is_int8_too(tmp_path):
    """The table of a text model is most of it: int8 is a quarter of the float file."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(3000, 32)(tokens)
    h = Pooling("mean")(x, mask=ops.not_equal(tokens, 0))
    y = keras.layers.Dense(2, activation="softmax")(h)
    model = keras.Model({"tokens": tokens}, {"probabilities": y})
    rows = token_rows(vocabulary=3000)
    report = export(model, tmp_path / "m", formats=("litert", "litert_int8"), samples=rows)
    size = {name: entry["size_bytes"] for name, entry in report["formats"].items()}
    assert size["litert_int8"] < 0.3 * size["litert"]


def test_operators_of_tensorflow_text_are_said_and_imported(tmp_path, tiny):
    text = pytest.importorskip("tensorflow_text")
    from keras_seq.export import close_workers
    from keras_seq.runs import open_model

    model, rows = tiny
    splitter = text.WhitespaceTokenizer()

    def call(inputs):
        return {"words": splitter.tokenize(inputs["text"]).row_lengths()}

    options = {
        "name": "serving_text",
        "call": call,
        "inputs": {"text": ((None,), "string")},
        "samples": {"text": TEXTS},
        "expected": {"words": np.array([2, 0, 2, 4, 9])},
    }
    with pytest.raises(ExportError, match="needs_tensorflow_text=True"):
        export(
            model,
            tmp_path / "m",
            formats="saved_model",
            samples=rows,
            endpoints=[Endpoint(**options)],
        )
    report = export(
        model,
        tmp_path / "m",
        formats=("saved_model", "litert"),
        samples=rows,
        endpoints=[Endpoint(**options, needs_tensorflow_text=True)],
    )
    assert report["formats"]["saved_model"]["needs"] == ["tensorflow_text"]
    assert "needs" not in report["formats"]["litert"]
    card = (tmp_path / "m" / "README.md").read_text()
    assert "`serving_text` needs tensorflow-text operators." in card
    assert "`import tensorflow_text` before" in card
    run, _, _ = open_model(tmp_path / "m")
    assert run(rows)["probabilities"].shape == (3, 3)
    close_workers()


def test_the_card_of_strings_can_be_followed():
    report = {
        "version": 1,
        "parameters": 1,
        "versions": {},
        "inputs": {"text": {"shape": [None], "dtype": "string"}},
        "outputs": {},
        "formats": {},
    }
    entry = {"file": "1", "status": "passed", "judged_by": "outputs", "size_bytes": 1}
    entry |= {"relative_difference": 0.0, "tolerance": 0.0}
    card = model_card("m", report | {"formats": {"saved_model": entry}}, {})
    assert """-d '{"inputs": {"text": [""]}}'""" in card


def test_labels_judge_int8_before_the_score():
    from dataclasses import replace

    from keras_seq.export import litert_int8

    mine = replace(litert_int8, name="mine")
    from keras_seq.export import Run

    model = {"probabilities": np.tile([[0.8, 0.2]], (200, 1))}
    other = {"probabilities": model["probabilities"].copy()}
    other["probabilities"][:2] = [0.3, 0.7]
    report = judge(mine, model, Run(outputs=other), score=lambda outputs: float(len(outputs)))
    assert (report["judged_by"], report["status"]) == ("labels", "passed")
    assert report["labels"]["differ"] == 0.01
    other["probabilities"][:3] = [0.3, 0.7]
    assert judge(mine, model, Run(outputs=other))["status"] == "missed"
