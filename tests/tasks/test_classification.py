"""The classification task: splits, bad data, predictions in order, and what is shipped."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_seq import saving
from keras_seq.baselines import NaiveBayesLogistic
from keras_seq.data import TokenStore
from keras_seq.errors import UserError
from keras_seq.tasks import text
from keras_seq.tasks.classification import Classification
from keras_seq.tasks.classification_files import label_file
from keras_seq.tasks.classification_problem import ClassificationProblem

GOOD = ("fine", "lovely", "warm", "bright")
BAD = ("dull", "cold", "long", "poor")
PLAIN = ("the", "film", "was", "and", "story", "of", "it")


def review(generator: np.random.Generator, label: int) -> str:
    words = [*generator.choice(PLAIN, size=generator.integers(2, 9))]
    words.insert(int(generator.integers(len(words))), generator.choice((BAD, GOOD)[label]))
    return " ".join(words)


def write(
    path: Path, rows: Sequence[Sequence[Any]], header: Sequence[str] = ("text", "label")
) -> str:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def reviews(path: Path, count: int = 240, seed: int = 0, names: Sequence[str] = ("0", "1")) -> str:
    generator = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        rows.append([review(generator, i % 2), names[i % 2]])
    return write(path, rows)


def prepare(path: str, **options: Any) -> ClassificationProblem:
    usual = {"embedding": 8, "max_tokens": 16, "token_dropout": 0.0}
    return Classification(data=path, **{**usual, **options}).prepare()


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> ClassificationProblem:
    return prepare(reviews(tmp_path_factory.mktemp("data") / "reviews.csv"))


# ---- splits -------------------------------------------------------------------------------------


def test_parts_are_stratified_and_do_not_overlap(problem: ClassificationProblem):
    rows = problem.rows
    assert sorted(np.concatenate(list(rows.values()))) == list(range(240))
    for part, share in {"test": 0.1, "validation": 0.09, "train": 0.81}.items():
        assert len(rows[part]) == pytest.approx(240 * share, abs=4)
        assert np.bincount(problem.truth[part]) == pytest.approx([len(rows[part]) / 2] * 2, abs=3)


def test_equal_texts_and_groups_stay_on_one_side(tmp_path: Path):
    generator = np.random.default_rng(0)
    rows = []
    for i in range(120):
        film = i // 4
        rows.append([f"text {generator.integers(60)}", "ab"[i % 2], f"film {film}"])
    path = write(tmp_path / "a.csv", rows, ("text", "label", "film"))
    # Texts that occur under two films join these films too: keep what there is of them apart.
    for options in ({}, {"group_column": "film"}):
        if options:
            rows = [
                [f"{content} {i}", label, film] for i, (content, label, film) in enumerate(rows)
            ]
            path = write(tmp_path / "b.csv", rows, ("text", "label", "film"))
        found = prepare(path, test_fraction=0.2, validation=0.2, **options)
        key = 2 if options else 0
        sides = [{rows[i][key] for i in part} for part in found.rows.values()]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_folds_are_a_partition(tmp_path: Path):
    path = reviews(tmp_path / "a.csv", 60)
    tested = [prepare(path, folds=5, fold=k).rows["test"] for k in range(5)]
    assert sorted(np.concatenate(tested)) == list(range(60))


def test_split_does_not_depend_on_the_process(problem: ClassificationProblem):
    again = problem.options.prepare()
    for part in problem.rows:
        assert again.rows[part].tolist() == problem.rows[part].tolist()
    assert again.tokenizer == problem.tokenizer


def test_tokenizer_is_made_from_the_training_part(tmp_path: Path):
    rows = [[f"word {chr(97 + i % 26)}x", "ab"[i % 2]] for i in range(52)]
    path = write(tmp_path / "a.csv", rows)
    other = write(tmp_path / "b.csv", [["secret word", "a"], ["word", "b"]])
    found = prepare(path, test=other)
    assert "secret" not in found.tokenizer.vocabulary
    assert found.store[52].tolist()[0] == 1  # unknown


def test_hold_out_keeps_one_of_each_label():
    held = text.hold_out(["a"] * 20 + ["b", "b", "c"], 0.5, seed=3)
    assert not held[22] and held[20:22].sum() <= 1
    assert held[:20].sum() == 10


# ---- data that will not do ----------------------------------------------------------------------


def test_a_class_that_is_only_tested_is_refused(tmp_path: Path):
    train, test = reviews(tmp_path / "a.csv", 40), reviews(tmp_path / "b.csv", 10, names=("0", "x"))
    with pytest.raises(UserError, match="class x is in the test part and not in the training"):
        prepare(train, test=test)


def test_one_class_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="one class"):
        prepare(reviews(tmp_path / "a.csv", 40, names=("1", "1")))


def test_too_few_rows_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="too few"):
        prepare(reviews(tmp_path / "a.csv", 4))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "--data is missing"),
        ({"data": "a.csv", "inputs": "images"}, "choose one of text, series"),
        ({"data": "a.csv", "dropout": 1.0}, "--dropout is 1.0"),
        ({"data": "a.csv", "max_tokens": 2}, "at least 8"),
        ({"data": "a.csv", "folds": 1}, "at least 2"),
        ({"data": "a.csv", "folds": 5, "fold": 5}, "0 to 4"),
        ({"data": "a.csv", "fold": 1}, "together with --folds"),
        ({"data": "a.csv", "test": "b.csv", "folds": 3}, "one of them"),
        ({"data": "a.csv", "validation": 0.0}, "between 0 and 1"),
        ({"data": "a.csv", "multi_label": "|", "class_weights": "balanced"}, "one label"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        Classification(**options)


def test_forecasters_are_not_accepted(problem: ClassificationProblem):
    from keras_seq.models import resolve

    assert "forecaster" in problem.options.accepts(resolve("nhits"))
    assert problem.options.accepts(resolve("gru")) == ""
    series = Classification(data="a.csv", inputs="series")
    assert (
        "token ids" in series.accepts(resolve("text_cnn")) or series.accepts(resolve("gru")) == ""
    )
    assert "token ids" in series.accepts(resolve("fasttext"))


def test_strange_texts_go_through(tmp_path: Path):
    strange = [
        "",
        " ",
        "مرحبا بالعالم",
        "👍🏽👨‍👩‍👧 film",
        "x" * 5000,
        "$a_b^{c",
        "<br />",
        "\u200b",
    ]
    rows = [[content, "ab"[i % 2]] for i, content in enumerate(strange * 8)]
    for i, row in enumerate(rows):
        row[0] += f" {i}" if row[0] else ""
    found = prepare(write(tmp_path / "a.csv", rows))
    assert found.store.lengths.min() >= 1
    assert any("empty text" in line for line in found.notes)
    model = found.build("gru", width=8)
    given = found.predict(model).probabilities["test"]
    assert np.isfinite(given).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.figures(model)["mistakes"].canvas.draw()


# ---- predictions and scores ---------------------------------------------------------------------


def trained(problem: ClassificationProblem, name: str = "gru", **options: Any) -> keras.Model:
    model = problem.build(name, **{"width": 16, **options})
    problem.adapt(model)
    how = problem.training()
    prepare_targets: Callable[[Any], Any] = how.pop("prepare_targets")
    model.compile(optimizer=keras.optimizers.Adam(0.02), **how)
    data = problem.data("train", model).dataset(32, seed=0, steps=60)
    model.fit(data.map(lambda x, y: (x, prepare_targets(y))), epochs=1, shuffle=False, verbose=0)
    return model


@pytest.fixture(scope="module")
def model(problem: ClassificationProblem) -> keras.Model:
    return trained(problem)


def test_a_network_learns_what_is_easy(problem: ClassificationProblem, model: keras.Model):
    scores = problem.scores(problem.predict(model))
    assert scores["accuracy"] > 0.85
    assert list(problem.labels) == list(scores)
    assert set(problem.labels) >= {problem.primary}


def test_predictions_stand_in_the_order_of_the_rows(
    problem: ClassificationProblem, model: keras.Model
):
    given = problem.predict(model, batch_size=7).probabilities["test"]
    for i, row in enumerate(problem.rows["test"]):
        logits = model.predict_on_batch({"tokens": problem.store[row][None]})["logits"]
        assert given[i] == pytest.approx(keras.ops.softmax(logits)[0].numpy(), abs=1e-5)


def test_baselines_run_and_the_strong_one_is_strong(problem: ClassificationProblem):
    found = {name: problem.scores(prediction) for name, prediction, *_ in problem.baselines()}
    assert list(found) == ["majority", "naive_bayes", "nb_logistic_regression"]
    assert found["majority"]["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert found["nb_logistic_regression"]["accuracy"] > 0.9
    assert problem.reference in found


def test_paired_test_has_the_sign_of_the_difference(problem: ClassificationProblem):
    ours, theirs = np.zeros(100), np.r_[np.ones(20), np.zeros(80)]
    found = problem.paired_test(ours, theirs)
    assert found["statistic"] < 0 and found["p"] < 0.01
    assert found["difference"] == -0.2
    assert problem.paired_test(ours + 0.5, theirs + 0.5)["test"].startswith("paired bootstrap")


def test_ensemble_gives_the_average(problem: ClassificationProblem, model: keras.Model):
    # One of them needs a fixed length, the other takes any.
    models = [model, problem.build("mlp", width=8)]
    together = problem.ensemble(models)
    expected = problem.average([problem.predict(m) for m in models])
    given = problem.predict(together)
    for part in ("validation", "test"):
        assert given.probabilities[part] == pytest.approx(expected.probabilities[part], abs=1e-5)


def test_class_weights_count_rare_classes_as_much(tmp_path: Path):
    generator = np.random.default_rng(0)
    rows = [[f"{review(generator, int(i % 5 == 0))} {i}", "ba"[i % 5 == 0]] for i in range(100)]
    found = prepare(write(tmp_path / "a.csv", rows), class_weights="balanced")
    counts = np.bincount(found.truth["train"])
    loss = found.training()["loss"]["logits"]
    assert loss.weights == pytest.approx(counts.sum() / (2 * counts))


def test_layers_that_count_are_adapted(problem: ClassificationProblem):
    model = problem.build("fasttext", buckets=1024)
    problem.adapt(model)
    given = problem.predict(trained(problem, "fasttext", buckets=1024))
    assert problem.scores(given)["accuracy"] > 0.85


def test_several_labels(tmp_path: Path):
    generator = np.random.default_rng(0)
    rows = []
    for i in range(200):
        labels = [
            name for name, there in zip("gb", generator.random(2) < 0.5, strict=True) if there
        ]
        words = [generator.choice(PLAIN), str(i)]
        words += [generator.choice(GOOD)] if "g" in labels else []
        words += [generator.choice(BAD)] if "b" in labels else []
        rows.append([" ".join(words), "|".join(labels) or "none"])
    path = write(tmp_path / "a.csv", rows)
    found = prepare(path, multi_label="|")
    assert found.classes == ("b", "g", "none")
    model = trained(found)
    scores = found.scores(found.predict(model))
    assert found.primary == "macro_f1" and scores["macro_f1"] > 0.85
    shipped = found.deployable(model)
    outputs = shipped.predict(found.samples(shipped), verbose=0)
    assert outputs["probabilities"].sum(1).max() > 1.05  # each label on its own
    assert found.shipped_score(found.samples(shipped))(outputs) < 0.2
    found.figures(model), found.board_figures({"gru": found.predict(model)}, ["gru"])
    for name, prediction, *_ in found.baselines():
        assert found.scores(prediction)["macro_f1"] >= (0 if name == "majority" else 0.6)
    table = label_file(
        lambda inputs: shipped.predict(inputs, verbose=0), ["tokens"], found.metadata(), path
    )
    assert "b|g" in set(table["label"])


# ---- what is shipped ----------------------------------------------------------------------------


def test_text_goes_in_and_the_same_labels_come_out(
    problem: ClassificationProblem, model: keras.Model
):
    import tensorflow as tf

    shipped = problem.deployable(model)
    (endpoint,) = problem.endpoints(shipped)
    outputs = endpoint.call({"text": tf.constant(endpoint.samples["text"].tolist())})
    given = np.asarray(outputs["probabilities"])
    assert given == pytest.approx(endpoint.expected["probabilities"], abs=1e-6)
    assert not endpoint.needs_tensorflow_text
    samples = problem.samples(shipped, most=12)
    assert samples["tokens"].shape[0] == 12 and samples["tokens"].dtype == np.int32
    score = problem.shipped_score(samples)
    assert score(shipped.predict(samples, verbose=0)) <= 0.25


def test_a_fixed_length_is_kept_by_text(problem: ClassificationProblem):
    import tensorflow as tf

    shipped = problem.deployable(problem.build("mlp", width=8))
    (endpoint,) = problem.endpoints(shipped)
    given = endpoint.call({"text": tf.constant(["a fine film"] * 2)})["probabilities"]
    assert given.shape == (2, 2)


def test_files_beside_the_model_give_the_same_ids(problem: ClassificationProblem):
    files = problem.side_files()
    assert json.loads(files["labels.json"]) == ["0", "1"]
    scope: dict[str, Any] = {"__name__": "device"}
    exec(files["litert/tokenizer.py"].decode(), scope)
    device = scope["DeviceTokenizer"](json.loads(files["litert/tokenizer.json"]))
    for row in problem.rows["test"]:
        assert device.encode(problem.items[row]) == problem.store[row].tolist()


def test_another_file_is_labelled(
    problem: ClassificationProblem, model: keras.Model, tmp_path: Path
):
    shipped = problem.deployable(model)
    path = write(tmp_path / "new.csv", [["a dull film"], [""], ["lovely and warm"]], ("text",))
    metadata = json.loads(json.dumps(problem.metadata()))

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return shipped.predict(inputs, verbose=0)

    table = label_file(run, ["tokens"], metadata, path)
    assert list(table.columns) == ["label", "probability_0", "probability_1"]
    assert table["label"][0] == "0" and table["label"][2] == "1"
    np.save(tmp_path / "ids.npy", np.array([[5, 6, 0]]))
    assert len(label_file(run, ["tokens"], metadata, str(tmp_path / "ids.npy"))) == 1
    np.save(tmp_path / "ids.npy", np.array([[5, 60_000, 0]]))
    with pytest.raises(UserError, match="token id 60000 in row 1"):
        label_file(run, ["tokens"], metadata, str(tmp_path / "ids.npy"))


def test_another_run_gives_weights_and_tokenizer(
    problem: ClassificationProblem, model: keras.Model, tmp_path: Path
):
    run = tmp_path / "gru" / "0"
    saving.save(problem.deployable(model), run / "model.keras", problem.metadata())
    path = reviews(tmp_path / "more.csv", seed=5, names=("no", "yes"))
    found = prepare(path, init=str(run))
    assert found.tokenizer == problem.tokenizer
    fresh = found.build("gru", width=16)
    logits = np.asarray(fresh.get_layer("logits").kernel)
    (note,) = found.adapt(fresh)
    for name in ("embedding", "gru_0" if any(x.name == "gru_0" for x in fresh.layers) else "gru"):
        if not any(layer.name == name for layer in fresh.layers):
            continue
        for ours, theirs in zip(
            fresh.get_layer(name).weights, model.get_layer(name).weights, strict=True
        ):
            assert np.array_equal(ours, theirs)
    # Other labels: the class scores begin anew.
    assert np.array_equal(fresh.get_layer("logits").kernel, logits)
    assert "embedding" in note
    with pytest.raises(UserError, match="none of its layers"):
        found.adapt(prepare(path, init=str(run), embedding=4).build("text_cnn", width=3))
    with pytest.raises(UserError, match=r"no model\.keras"):
        prepare(path, init=str(tmp_path))


def test_word_vectors_begin_the_embedding(tmp_path: Path):
    data = reviews(tmp_path / "reviews.csv")
    file = tmp_path / "words.vec"
    file.write_text("fine 3 4 0\ndull -3 -4 0\nelsewhere 1 1 1\n")
    found = prepare(data, vectors=str(file))
    model = found.build("text_cnn", width=3)
    before = np.array(model.get_layer("embedding").embeddings)
    (note,) = found.adapt(model)
    assert note.endswith(f"words.vec: 2 of {found.tokenizer.size} words")
    after = np.array(model.get_layer("embedding").embeddings)
    fine, dull = (found.tokenizer.encode(word)[0] for word in ("fine", "dull"))
    # Root mean square 0.1 over all that was found.
    wanted = np.float32([3, 4, 0]) * 0.1 / np.sqrt(25 / 3)
    np.testing.assert_allclose(after[fine], wanted, rtol=1e-6)
    np.testing.assert_allclose(after[dull], -wanted, rtol=1e-6)
    others = [i for i in range(len(before)) if i not in (fine, dull)]
    assert np.array_equal(after[others], before[others])
    (note,) = found.adapt(found.build("fasttext"))
    assert "in its own way" in note
    with pytest.raises(UserError, match="the tokens are characters"):
        prepare(data, vectors=str(file), tokenizer="characters")
    with pytest.raises(UserError, match="both fill the embedding"):
        prepare(data, vectors=str(file), init="runs/another")


def test_a_run_is_scored_on_another_file(
    problem: ClassificationProblem, model: keras.Model, tmp_path: Path
):
    shipped = problem.deployable(model)
    saving.save(shipped, tmp_path / "model.keras", problem.metadata())
    other = prepare(reviews(tmp_path / "b.csv", seed=9))
    other.check_fits(shipped, tmp_path)
    assert other.tokenizer == problem.tokenizer
    assert other.scores(other.predict(model))["accuracy"] > 0.85
    with pytest.raises(UserError, match="knows the labels 0, 1"):
        wrong = prepare(reviews(tmp_path / "c.csv", names=("0", "x")))
        wrong.check_fits(shipped, tmp_path)


def test_words_about_the_data(problem: ClassificationProblem, tmp_path: Path):
    said = "\n".join(problem.notes)
    assert "train: 19" in said and "tokens a text" in said and "padding" in said
    facts = problem.describe()
    assert facts["examples"]["test"] == len(problem.rows["test"])
    json.dumps(facts), json.dumps(problem.metadata())
    long = "one two three four five six seven eight nine ten"
    train = write(tmp_path / "a.csv", [[f"{long} {i}", "ab"[i % 2]] for i in range(20)])
    test = write(tmp_path / "b.csv", [[f"{long} 3", "b"], ["other words", "a"]])
    said = "\n".join(prepare(train, test=test).notes)
    assert "1 of 2 test texts (50.0%)" in said
    assert "test: row 1, training: row" in said


def test_pictures(problem: ClassificationProblem, model: keras.Model):
    assert {"confusion", "calibration"} <= set(problem.figures(model))
    prediction = problem.predict(model)
    found = problem.board_figures({"gru": prediction}, ["gru"])
    assert len(found) == 2


# ---- numeric sequences --------------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
def test_numeric_sequences(tmp_path: Path, same: bool):
    generator = np.random.default_rng(0)
    rows = []
    for i in range(120):
        steps = 12 if same else int(generator.integers(6, 14))
        slope = (-1, 1)[i % 2]
        for t in range(steps):
            rows.append(
                [i, t, slope * t + generator.normal(), 100 + generator.normal(), "du"[i % 2]]
            )
    path = write(tmp_path / "a.csv", rows, ("id", "t", "x", "y", "label"))
    options = {"inputs": "series", "id_column": "id", "time_column": "t"}
    options["value_column"] = ("x", "y")
    found = prepare(path, **options)
    model = trained(found, "gru")
    assert set(model.input) == ({"features"} if same else {"features", "mask"})
    assert found.scores(found.predict(model))["accuracy"] > 0.8
    shipped = found.deployable(model)
    samples = found.samples(shipped)
    given = shipped.predict(samples, verbose=0)
    assert found.shipped_score(samples)(given) < 0.2
    # What is shipped takes raw values: the same probabilities.
    rows_of = found._sample_rows("test", 256).tolist()
    place = [found.rows["test"].tolist().index(row) for row in rows_of]
    expected = found.predict(model).probabilities["test"][place]
    assert given["probabilities"] == pytest.approx(expected, abs=1e-4)
    table = label_file(
        lambda inputs: shipped.predict(inputs, verbose=0), list(samples), found.metadata(), path
    )
    assert len(table) == 120
    names = [name for name, *_ in found.baselines()]
    assert names == ["majority", "logistic_regression", "nearest_neighbours"]
    assert found.endpoints(shipped) == () and list(found.side_files()) == ["labels.json"]
    if not same:
        with pytest.raises(UserError, match="one length"):
            found.build("mlp")


# ---- real data ----------------------------------------------------------------------------------


@pytest.mark.realdata
def test_dna_folds_keep_equal_sequences_together(data_path: Path):
    found = prepare(
        str(data_path / "dna" / "splice.csv"),
        text_column=("sequence",),
        label_column="class",
        tokenizer="characters",
        folds=10,
        fold=3,
        clean="none",
    )
    assert len(found.classes) == 3
    sides = [{found.items[i] for i in rows} for rows in found.rows.values()]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    scores = {name: found.scores(p)["accuracy"] for name, p, *_ in found.baselines()}
    assert scores["position_logistic_regression"] > 0.9


@pytest.mark.slow
@pytest.mark.realdata
def test_imdb_baseline_is_as_strong_as_published(data_path: Path):
    folder = data_path / "sentiment"
    found = Classification(
        data=str(folder / "imdb_train.tsv.gz"), test=str(folder / "imdb_test.tsv.gz")
    ).prepare()
    # The strongest, fitted once, on what `baselines` gives it for the test part.
    known = np.concatenate([found.rows["train"], found.rows["validation"]])
    train, test = (
        TokenStore.from_rows(found.store[row] for row in rows)
        for rows in (known, found.rows["test"])
    )
    model = NaiveBayesLogistic().fit(train, np.eye(2)[found.targets[known]], exclusive=True)
    right = model.predict(test).argmax(-1) == found.targets[found.rows["test"]]
    assert len(right) == 25_000 and right.mean() > 0.914
    assert any("123 of 25,000 test texts" in line for line in found.notes)
