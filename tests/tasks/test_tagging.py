"""The tagging task, from files to tags, on small sentences whose tags follow rules."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq import UserError
from keras_seq.heads import Tokens
from keras_seq.heads.tagging import Characters, TokenLabels
from keras_seq.models import resolve
from keras_seq.tasks.tagging import Tagging
from keras_seq.tasks.tagging_problem import TaggingProblem, tag_file

NOUNS = ("dog", "cat", "house", "bird", "tree", "Ann", "Bob")
VERBS = ("sees", "likes", "finds", "hears")


def sentence(generator: np.random.Generator) -> list[tuple[str, str]]:
    """The verb ends in -s or -zes, also where the stem is made up; names have large letters."""

    def noun() -> list[tuple[str, str]]:
        word = str(generator.choice(NOUNS))
        if word[0].isupper():
            return [(word, "PROPN")]
        return [("the", "DET"), (word, "NOUN")]

    verb = str(generator.choice(VERBS))
    if generator.random() < 0.3:
        verb = "".join(generator.choice(list("abdfgk"), 4)) + "zes"
    return [*noun(), (verb, "VERB"), *noun(), (".", "PUNCT")]


def write(path: Path, rows: list[list[tuple[str, str]]]) -> str:
    path.write_text("\n\n".join("\n".join(f"{w}\t{t}" for w, t in row) for row in rows) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tags")
    generator = np.random.default_rng(0)
    return {
        part: write(folder / f"{part}.tsv", [sentence(generator) for _ in range(count)])
        for part, count in {"data": 240, "validation": 40, "test": 40}.items()
    }


def make(files: dict[str, str], **options: object) -> TaggingProblem:
    small = {"embedding": 12, "characters": 8, "token_dropout": 0.05}
    return Tagging(**files, **{**small, **options}).prepare()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def problem(files) -> TaggingProblem:
    return make(files)


def train(problem: TaggingProblem, epochs: int = 5) -> keras.Model:
    from keras_seq.training import fit

    keras.utils.set_random_seed(0)
    model = problem.build("gru", width=16, bidirectional=True)
    fit(
        model,
        problem.data("train", model),
        problem.data("validation", model),
        epochs=epochs,
        batch_size=16,
        learning_rate=0.02,
        seed=0,
        verbose=0,
        **problem.training(),
    )
    return model


@pytest.fixture(scope="module")
def trained(problem) -> keras.Model:
    return train(problem)


def test_the_accuracy_can_choose_the_best_epoch_where_it_is_measured(files, problem):
    assert problem.monitors == {"accuracy": False}
    assert make(files, crf=True).monitors == {}


# ---- data ---------------------------------------------------------------------------------------


def test_words_tags_and_spelling_stand_at_the_same_places(problem, trained):
    data = problem.data("test", trained)
    x, y = data.batch(np.arange(3))
    assert x["tokens"].shape == y.shape
    assert x["characters"].shape == (*y.shape, 20)
    for i, row in enumerate(problem.parts["test"].words[:3]):
        tags = problem.tables["test"][1][i]
        assert [problem.tags[k - 1] for k in y[i, : len(row)]] == tags
        assert not y[i, len(row) :].any()
        assert not x["tokens"][i, len(row) :].any()
        assert not x["characters"][i, len(row) :].any()
        letters = problem.characters.vocabulary
        for word, spelt in zip(row, x["characters"][i], strict=False):
            inside = spelt[1 : len(word) + 1]
            assert spelt[0] == 2
            assert spelt[len(word) + 1] == 3
            assert "".join(letters[k] for k in inside if k != 1) == "".join(
                c for c in word if c in letters
            )


def test_rare_words_are_unknown_and_counted_as_not_seen_only_if_they_are(problem):
    rare = [w for row in problem.parts["train"].words for w in row if w.endswith("zes")]
    assert problem.given.ids(rare[:1]) == [1] or rare.count(rare[0]) > 1
    assert rare[0] in problem.known
    assert any("not seen in training" in note for note in problem.notes)


def test_case_is_for_the_characters(problem):
    assert problem.given.ids(["The"]) == problem.given.ids(["the"])
    assert problem.given.characters(["The"]) != problem.given.characters(["the"])


def test_long_words_keep_both_ends(problem):
    row = problem.given.characters(["a" * 30 + "dog"])[0]
    assert len(row) == 20
    assert row[0] == 2
    letters = problem.characters.vocabulary
    assert [letters[k] for k in row[-4:]] == ["d", "o", "g", "</s>"]


def test_splits_keep_like_sentences_together(files):
    problem = make({"data": files["data"]}, validation_fraction=0.2, test_fraction=0.2)
    sides = {p: {tuple(row) for row in problem.parts[p].words} for p in problem.parts}
    assert not sides["train"] & sides["test"]
    assert not sides["train"] & sides["validation"]
    counts = [len(problem.parts[p].words) for p in ("train", "validation", "test")]
    assert sum(counts) == 240
    assert 30 < counts[2] < 70


def test_long_sentences_are_read_in_pieces(files, tmp_path):
    rows = [[("dog", "NOUN")] * 30]
    problem = make({**files, "test": write(tmp_path / "long.tsv", rows)}, max_tokens=8)
    assert [len(row) for row in problem.parts["test"].words] == [8, 8, 8, 6]
    assert any("read in pieces" in note for note in problem.notes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": ""}, "--data is missing"),
        ({"tag_column": "tags"}, "--tag-column is 'tags'"),
        ({"dropout": 1.0}, "--dropout is 1.0"),
        ({"min_count": 0}, "--min-count is 0"),
        ({"test_fraction": 1.5}, "--test-fraction is 1.5"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(UserError, match=said):
        Tagging(**{"data": "words.tsv", **options})


def test_data_that_will_not_do(files, tmp_path):
    one = write(tmp_path / "one.tsv", [[(f"a{i}", "X")] for i in range(30)])
    with pytest.raises(UserError, match="the one tag 'X' only"):
        make({"data": one})
    other = write(tmp_path / "other.tsv", [[("a", "NN"), ("b", "VB")]])
    with pytest.raises(UserError, match="test part has tags that the training part has not"):
        make({**files, "test": other})
    with pytest.raises(UserError, match="too few to split"):
        make({"data": write(tmp_path / "two.tsv", [[("a", "X"), ("b", "Y")]])})
    with pytest.raises(UserError, match="no word of"):
        make(files, min_count=10_000)


def test_a_rare_new_tag_is_a_note_and_an_error(files, tmp_path):
    generator = np.random.default_rng(5)
    rows = [sentence(generator) for _ in range(30)] + [[("oh", "INTJ")]]
    problem = make({**files, "test": write(tmp_path / "new.tsv", rows)})
    assert any("'INTJ'" in note for note in problem.notes)
    _name, perfect, *_ = next(iter(problem.baselines()))
    truth = {part: problem.parts[part].labels.copy() for part in ("validation", "test")}
    truth["test"][-1] = 0
    found = problem.scores(replace(perfect, tags=truth))
    assert found["accuracy"] == pytest.approx(1 - 1 / len(truth["test"]))


# ---- training and scores ------------------------------------------------------------------------


def test_a_network_learns_and_beats_counting(problem, trained):
    scores = problem.scores(problem.predict(trained))
    rows = {name: problem.scores(found) for name, found, *_ in problem.baselines()}
    assert list(rows) == ["majority", "word_majority", "feature_tagger"]
    assert rows["majority"]["accuracy"] < rows["word_majority"]["accuracy"]
    assert scores["accuracy"] > 0.97 > rows["majority"]["accuracy"]
    assert scores["unknown_accuracy"] > 0.9  # by spelling and by place
    assert problem.primary == "accuracy"
    assert set(problem.labels) == set(scores)


def test_losses_are_those_of_sentences(problem, trained):
    found = problem.predict(trained)
    losses = problem.losses(found)
    assert losses.shape == (40,)
    assert losses.mean() == pytest.approx(1 - problem.scores(found)["accuracy"])
    worst = next(iter(problem.baselines()))[1]
    test = problem.paired_test(losses, problem.losses(worst))
    assert test["statistic"] < 0
    assert test["p"] < 0.01
    assert "sentences" in test["test"]


def test_predictions_are_in_the_order_of_the_file(problem, trained):
    found = problem.predict(trained)
    row = 7
    a, b = problem.parts["test"].ids.offsets[row : row + 2]
    words = problem.parts["test"].words[row]
    x = {
        "tokens": np.array([problem.given.ids(words)], "int32"),
        "characters": np.array([problem.given.characters(words)], "int32"),
    }
    alone = problem.deployable(trained).predict_on_batch(x)["probabilities"][0]
    np.testing.assert_allclose(found.probabilities["test"][a:b], alone, atol=1e-5)


def test_ensemble_is_the_average(problem, trained):
    other = problem.build("cnn", width=8)
    mean = problem.average([problem.predict(trained), problem.predict(other)])
    joined = problem.predict(problem.ensemble([trained, other]))
    np.testing.assert_allclose(joined.probabilities["test"], mean.probabilities["test"], atol=1e-5)
    np.testing.assert_array_equal(joined.tags["test"], mean.tags["test"])


def test_crf_trains_predicts_and_joins(files):
    problem = make(files, crf=True)
    model = train(problem, epochs=3)
    found = problem.predict(model)
    assert problem.scores(found)["accuracy"] > 0.9
    shipped = problem.deployable(model)
    assert set(shipped.output) == {"probabilities", "tags"}
    x = problem.samples(shipped, most=8)
    out = shipped.predict_on_batch(x)
    np.testing.assert_allclose(out["probabilities"].sum(-1), 1, atol=1e-5)
    assert problem.shipped_score(x)(out) < 0.2
    joined = problem.predict(problem.ensemble([model, model]))
    np.testing.assert_allclose(joined.probabilities["test"], found.probabilities["test"], atol=1e-5)


def test_spans_rank_by_their_f1(tmp_path):
    generator = np.random.default_rng(0)
    rows = []
    for i in range(60):
        name = [("Ann", "B-PER"), ("Lee", "I-PER")] if generator.random() < 0.5 else [("it", "O")]
        rows.append([*name, ("sleeps", "O"), (str(i), "O")])
    problem = make({"data": write(tmp_path / "names.tsv", rows), "test": "", "validation": ""})
    assert problem.primary == "span_f1"
    assert next(iter(problem.labels)) == "span_f1"
    names = dict((n, problem.scores(p)) for n, p, *_ in problem.baselines())
    assert names["word_majority"]["span_f1"] == 1.0
    assert names["majority"]["span_f1"] == 0.0


def test_recurrent_networks_read_both_ways_unless_told(files, problem):
    assert "gru_0_both_ways" in {layer.name for layer in problem.build("gru", width=8).layers}
    names = {layer.name for layer in problem.build("gru", width=8, bidirectional=False).layers}
    assert "gru_0" in names
    assert "gru_0" in {layer.name for layer in make(files, both_ways=False).build("gru").layers}


def test_which_architectures_fit():
    task = Tagging(data="train.conllu")
    for name in ("lstm", "gru", "tcn", "transformer", "cnn", "bert", "gpt"):
        assert task.accepts(resolve(name)) == ""
    for name in ("linear", "nhits", "mlp", "fasttext", "text_cnn", "bag_of_words"):
        assert task.accepts(resolve(name))


def test_the_head_refuses_what_has_no_steps():
    head = TokenLabels(classes=2, tokens=Tokens(vocabulary=9, width=4))
    with pytest.raises(UserError, match="no state for each token"):
        keras_seq.build("text_cnn", inputs={"tokens": (None,)}, head=head)


def test_padding_changes_no_character_features():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None), dtype="int32")
    model = keras.Model(inputs, Characters(vocabulary=9, width=6).features(inputs))
    x = np.random.default_rng(0).integers(1, 9, (2, 3, 5)).astype("int32")
    longer = np.pad(x, ((0, 0), (0, 0), (0, 4)))
    np.testing.assert_allclose(model(x), model(longer), atol=1e-6)
    assert not np.asarray(model(np.zeros((1, 1, 5), "int32"))).any()


def test_init_takes_words_and_weights(files, problem, trained, tmp_path):
    from keras_seq import saving

    path = tmp_path / "model.keras"
    saving.save(problem.deployable(trained), path, metadata=problem.metadata())
    warm = make(files, init=str(path), min_count=1)
    assert warm.words == problem.words
    model = warm.build("gru", width=16, bidirectional=True)
    warm.adapt(model)
    for name in ("embedding", "gru_0_both_ways"):
        ours, theirs = model.get_layer(name).get_weights(), trained.get_layer(name).get_weights()
        np.testing.assert_array_equal(ours[0], theirs[0])


def test_word_vectors_begin_the_embedding(files, tmp_path):
    file = tmp_path / "words.vec"
    file.write_text("dog 3 4\ncat -3 4\n")
    found = make(files, vectors=str(file), min_count=1)
    model = found.build("gru", width=4)
    (note,) = found.adapt(model)
    assert "begins with the vectors of" in note
    table = np.array(model.get_layer("embedding").embeddings)
    place = list(found.words.vocabulary).index("dog")
    np.testing.assert_allclose(table[place], np.float32([3, 4]) * 0.1 / np.sqrt(12.5), rtol=1e-6)


# ---- what is shipped ----------------------------------------------------------------------------


def test_files_are_tagged(problem, trained, tmp_path):
    shipped = problem.deployable(trained)
    path = tmp_path / "new.txt"
    path.write_text("Ann sees the dog.\n\nthe bird blubzes Bob.\n")
    found = tag_file(shipped.predict_on_batch, set(shipped.input), problem.metadata(), str(path))
    assert list(found.columns) == ["sentence", "word", "tag", "probability"]
    assert " ".join(found["word"]) == "Ann sees the dog . the bird blubzes Bob ."
    assert found["tag"].tolist()[:5] == ["PROPN", "VERB", "DET", "NOUN", "PUNCT"]
    assert found["sentence"].tolist() == [1] * 5 + [2] * 5
    assert found["probability"].between(0, 1.0001).all()
    again = tag_file(
        shipped.predict_on_batch, set(shipped.input), problem.metadata(), problem.options.test
    )
    right = (again["tag"] == again["truth"]).mean()
    assert right == pytest.approx(problem.scores(problem.predict(trained))["accuracy"])
    path.write_text("\n \n")
    with pytest.raises(UserError, match="no words"):
        tag_file(shipped.predict_on_batch, set(shipped.input), problem.metadata(), str(path))


def test_device_files_give_the_same_ids_without_the_package(problem, tmp_path):
    for name, content in problem.side_files().items():
        (tmp_path / Path(name).name).write_bytes(content)
    code = (
        "import sys, json; sys.modules['keras_seq'] = None\n"
        "from words import GivenWords\n"
        "given = GivenWords.from_file('tagger.json')\n"
        "rows = json.load(open('rows.json'))\n"
        "print(json.dumps([[given.ids(r), given.characters(r), given.tags] for r in rows]))"
    )
    rows = [*problem.parts["test"].words, ["naïve", "İstanbul", "ΣΊΣΥΦΟΣ", "x" * 50, "🙂"]]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    wanted = [[problem.given.ids(r), problem.given.characters(r), problem.tags] for r in rows]
    assert json.loads(done.stdout) == wanted


def test_metadata_is_json_and_describes(problem, trained):
    assert json.loads(json.dumps(problem.metadata())) == problem.metadata()
    facts = problem.describe()
    assert facts["sentences"] == {"train": 240, "validation": 40, "test": 40}
    assert json.loads(json.dumps(facts))
    problem.check_fits(problem.deployable(trained), "the model")
    with pytest.raises(UserError, match="reads characters, tokens"):
        make({"data": problem.options.data}, characters=0).check_fits(
            problem.deployable(trained), "the model"
        )


def test_pictures(problem, trained):
    assert list(problem.figures(trained)) == ["confusion/validation"]
    found = problem.board_figures({"gru": problem.predict(trained)}, ["gru"])
    assert list(found) == ["gru: tags of the test part"]


@pytest.mark.slow
def test_export_is_proved(problem, trained, tmp_path):
    from keras_seq.export import export

    shipped = problem.deployable(trained)
    samples = problem.samples(shipped, most=24)
    report = export(
        shipped,
        tmp_path / "tagger",
        formats=("saved_model", "litert"),
        samples=samples,
        score=problem.shipped_score(samples),
        metadata=problem.metadata(),
        files=problem.side_files(),
    )
    for name in ("saved_model", "litert"):
        assert report["formats"][name]["status"] == "passed"
        assert report["formats"][name]["labels"]["differ"] == 0
    assert report["formats"]["litert"]["flex"] is False
    assert (tmp_path / "tagger/litert/words.py").is_file()


@pytest.mark.realdata
def test_english_web_treebank_is_read_whole(data_path):
    folder = data_path / "tagging"
    name = "en_ewt-ud-{}.conllu.gz"
    problem = Tagging(
        data=str(folder / name.format("train")),
        validation=str(folder / name.format("dev")),
        test=str(folder / name.format("test")),
    ).prepare()
    assert len(problem.tags) == 17
    assert {p: len(x.words) for p, x in problem.parts.items()} == {
        "train": 12544, "validation": 2001, "test": 2077,
    }  # fmt: skip
    assert len(problem.parts["test"].labels) == 25094
