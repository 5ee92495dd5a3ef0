"""What ships labels 1,000 real reviews as the trained model does: SavedModel, LiteRT, int8, ids.

The device's side runs in a process of its own that can import neither TensorFlow nor Keras nor
this package: all it has is LiteRT, NumPy and the files of the exported folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_seq import saving
from keras_seq.data import read_texts
from keras_seq.preprocessing import train_tokenizer

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

REVIEWS = 1000
TRAINED_ON = 3000
INT8_MAY_DIFFER = 0.01

# Comparison -> architecture -> its options: small, so that a minute or two train them all.
NETWORKS: dict[str, dict[str, dict[str, Any]]] = {
    "at_once": {
        "text_cnn": {"width": 32},
        "fasttext": {"width": 16, "buckets": 4096},
    },
    "step_by_step": {
        "gru": {"width": 32},
        "lstm": {"width": 32, "bidirectional": True},
    },
}
# In int8 the steps of a recurrent network stand in the file one by one: there it takes fewer.
MAX_TOKENS = {"at_once": 128, "step_by_step": 64}
SHIPPED = [(comparison, name) for comparison, names in NETWORKS.items() for name in names]

SERVER = """
    import json, sys
    import numpy as np
    import tensorflow as tf

    texts, out, *folders = sys.argv[1:]
    with open(texts, encoding="utf-8") as file:
        texts = json.load(file)
    given = {}
    for folder in folders:
        model = tf.saved_model.load(folder + "/1")
        serve = model.signatures["serving_text"]
        found = [serve(text=tf.constant(texts[i : i + 50])) for i in range(0, len(texts), 50)]
        given[folder] = np.concatenate([x["probabilities"].numpy() for x in found])
    np.savez(out, **given)
    assert not {"keras_seq", "tensorflow_text"} & set(sys.modules)
"""

DEVICE = """
    import json, sys

    class Refuse:
        names = ("tensorflow", "keras", "keras_hub", "keras_nlp", "keras_seq", "tensorflow_text")

        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in self.names:
                raise ImportError(f"{name} is not on the device")

    sys.meta_path.insert(0, Refuse())
    folder, model, texts, out = sys.argv[1:]
    sys.path.insert(0, folder + "/litert")
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from tokenizer import DeviceTokenizer

    with open(texts, encoding="utf-8") as file:
        texts = json.load(file)
    tokenizer = DeviceTokenizer.from_file(folder + "/litert/tokenizer.json")
    interpreter = Interpreter(folder + "/litert/" + model)
    with open(folder + "/parity.json", encoding="utf-8") as file:
        formats = json.load(file)["formats"].values()
    if any(x["keeps_state"] for x in formats if x["file"] == "litert/" + model):
        interpreter.allocate_tensors()  # there is nothing to reset before
    run = interpreter.get_signature_runner("serving_default")
    # -1 where the length is open: then a text is given as long as it is.
    wanted = int(run.get_input_details()["tokens"]["shape_signature"][1])
    ids, probabilities = [], []
    for text in texts:
        row = tokenizer.encode(text)  # cut as the model wants it
        ids.append(row)
        row = row + [0] * (wanted - len(row))
        interpreter.reset_all_variables()
        probabilities.append(run(tokens=np.array([row], np.int32))["probabilities"][0])
    np.save(out, np.array(probabilities))
    with open(out + ".json", "w") as file:
        json.dump(ids, file)
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not loaded & set(Refuse.names), loaded
"""


@dataclass(frozen=True)
class Shipped:
    """An exported folder, its 1,000 raw reviews, and what the Keras model says about them."""

    folder: Path
    texts: Path
    ids: list[list[int]]
    most: int
    probabilities: np.ndarray


def cut(row: list[int], most: int) -> list[int]:
    """Of a long text a quarter from the front, the rest from the end."""
    front = most // 4
    if len(row) <= most:
        return row
    return row[:front] + row[len(row) - (most - front) :]


def alone(source: str, *words: Path | str) -> None:
    """Runs a program in a process that sees neither this folder nor the user's packages."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(source), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2000:]


def write(path: Path, texts: Sequence[str], labels: Sequence[str]) -> str:
    lines = [f"{label}\t{text}\n" for text, label in zip(texts, labels, strict=True)]
    path.write_text("label\ttext\n" + "".join(lines), encoding="utf-8")
    return str(path)


def some(path: Path, count: int, seed: int) -> tuple[list[str], list[str]]:
    """As many reviews of a sorted file, of both labels, in a random order."""
    table = read_texts(path)
    rows = np.random.default_rng(seed).permutation(len(table.texts))[:count]
    assert table.labels is not None
    return [table.texts[i] for i in rows], [table.labels[i] for i in rows]


@pytest.fixture(scope="module")
def reviews(data_path: Path) -> list[str]:
    return some(data_path / "sentiment" / "imdb_test.tsv.gz", REVIEWS, seed=1)[0]


@pytest.fixture(scope="module")
def comparisons(data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    import keras_seq

    folder = tmp_path_factory.mktemp("shipping")
    imdb = data_path / "sentiment"
    train = write(folder / "train.tsv", *some(imdb / "imdb_train.tsv.gz", TRAINED_ON, seed=0))
    test = write(folder / "test.tsv", *some(imdb / "imdb_test.tsv.gz", REVIEWS, seed=1))
    return {
        name: keras_seq.compare(
            "classification",
            data=train,
            test=test,
            out=folder / name,
            architectures=list(networks),
            overrides=networks,
            max_tokens=MAX_TOKENS[name],
            vocabulary=8000,
            embedding=32,
            epochs=3,
            learning_rate=0.003,
            ensemble=False,
            export=(),
            track=(),
            quiet=True,
        )
        for name, networks in NETWORKS.items()
    }


@pytest.fixture(scope="module")
def exported(comparisons: dict[str, Any], reviews: list[str]) -> dict[str, Shipped]:
    """Every network as `keras-seq export` ships it."""
    return {
        "-".join(each): ship(comparisons[each[0]], each[0], each[1], reviews) for each in SHIPPED
    }


@pytest.fixture(scope="module", params=SHIPPED, ids=lambda each: "-".join(each))
def shipped(request: pytest.FixtureRequest, exported: dict[str, Shipped]) -> Shipped:
    """One of them."""
    return exported["-".join(request.param)]


@pytest.fixture(scope="module")
def served(
    exported: dict[str, Shipped], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """What the SavedModels answer, folder by folder, all in one process without this package."""
    out = tmp_path_factory.mktemp("served") / "given.npz"
    folders = [each.folder for each in exported.values()]
    alone(SERVER, next(iter(exported.values())).texts, out, *folders)
    return dict(np.load(out))


def ship(comparison: Any, group: str, name: str, reviews: list[str]) -> Shipped:
    """Exports a network and moves it away from where it was trained."""
    from keras_seq.export import export

    problem = comparison.problem
    model = saving.load(comparison.out / name / "0" / "model.keras")
    samples = problem.samples(model)
    made = comparison.out.parent / "made" / f"{group}_{name}"
    export(
        model,
        made,
        formats=("saved_model", "litert", "litert_dynamic", "litert_int8"),
        samples=samples,
        calibration=problem.samples(model, "train", 512),
        score=problem.shipped_score(samples),
        metadata=problem.metadata(),
        endpoints=problem.endpoints(model),
        files=problem.side_files(),
    )
    folder = comparison.out.parent / "device" / made.name
    shutil.copytree(made, folder)
    texts = folder.parent / f"{made.name}.json"
    texts.write_text(json.dumps(reviews), encoding="utf-8")
    rows = problem.rows["test"]
    assert [problem.items[row] for row in rows] == reviews  # raw: tags and all
    tokens = problem._padded([problem.store[row] for row in rows], model)
    return Shipped(
        folder,
        texts,
        [problem.store[row].tolist() for row in rows],
        MAX_TOKENS[group],
        model.predict({"tokens": tokens}, verbose=0)["probabilities"],
    )


def test_networks_have_learned_something(comparisons: dict[str, Any]):
    """Equal labels of a network that always says the same would prove nothing."""
    for each, name in SHIPPED:
        comparison = comparisons[each]
        assert comparison.leaderboard.row(name).scores["accuracy"] > 0.7
        answers = comparison.predictions[name, 0].probabilities["test"].argmax(axis=1)
        assert 0.25 < answers.mean() < 0.75


def test_string_in_saved_model_labels_exactly_as_the_keras_model(
    shipped: Shipped, served: dict[str, np.ndarray]
):
    given = served[str(shipped.folder)]
    assert given == pytest.approx(shipped.probabilities, abs=1e-5)
    assert given.argmax(axis=1).tolist() == shipped.probabilities.argmax(axis=1).tolist()


def test_litert_with_the_tokeniser_beside_it_labels_exactly(shipped: Shipped, tmp_path: Path):
    out = tmp_path / "given.npy"
    alone(DEVICE, shipped.folder, "model_float32.tflite", shipped.texts, out)
    given = np.load(out)
    ids = json.loads(Path(f"{out}.json").read_text())
    wanted = [cut(whole, shipped.most) for whole in shipped.ids]
    assert ids == wanted
    assert max(map(len, ids)) == shipped.most < max(map(len, shipped.ids))
    assert given == pytest.approx(shipped.probabilities, abs=1e-4)
    assert given.argmax(axis=1).tolist() == shipped.probabilities.argmax(axis=1).tolist()


@pytest.mark.parametrize("form", ["int8", "dynamic"])
def test_int8_labels_nearly_all_alike(shipped: Shipped, form: str, tmp_path: Path):
    """All of it in int8, and with weights in int8 and states in float."""
    out = tmp_path / "given.npy"
    alone(DEVICE, shipped.folder, f"model_{form}.tflite", shipped.texts, out)
    differ = np.load(out).argmax(axis=1) != shipped.probabilities.argmax(axis=1)
    print(f"{shipped.folder.name}, {form}: {differ.mean():.1%} of the labels differ")
    assert differ.mean() <= INT8_MAY_DIFFER


@pytest.mark.parametrize("kind", ["words", "word_pieces", "byte_pairs", "unigrams", "characters"])
def test_device_gives_the_same_ids(kind: str, reviews: list[str], tmp_path: Path):
    """The file beside the model, run by Python alone, against `Tokenizer` and its graph."""
    tokenizer = train_tokenizer(kind, reviews[:300], vocabulary=2000, clean="html")
    for name, content in tokenizer.device_files().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "texts.json").write_text(json.dumps(reviews), encoding="utf-8")
    source = """
        import json, sys
        sys.path.insert(0, sys.argv[1])
        from tokenizer import DeviceTokenizer
        tokenizer = DeviceTokenizer.from_file(sys.argv[1] + "/tokenizer.json")
        with open(sys.argv[1] + "/texts.json", encoding="utf-8") as file:
            ids = [tokenizer.encode(text) for text in json.load(file)]
        with open(sys.argv[1] + "/ids.json", "w") as file:
            json.dump(ids, file)
        assert not {"numpy", "tensorflow", "keras", "keras_seq"} & set(sys.modules)
    """
    alone(source, tmp_path)
    device = json.loads((tmp_path / "ids.json").read_text())
    assert device == [row.tolist() for row in tokenizer.encode_batch(reviews)]
    graph = tokenizer.graph(None)
    for start in range(0, 100, 50):
        table = graph(reviews[start : start + 50]).numpy()
        for row, ids in zip(table, device[start : start + 50], strict=True):
            assert row[: len(ids)].tolist() == ids and not row[len(ids) :].any()
