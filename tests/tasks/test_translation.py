"""The translation task: reading, splitting, scores of known texts, what is refused."""

from __future__ import annotations

import gzip
import html

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_seq import UserError
from keras_seq.decoding import greedy_search, search_model, strip
from keras_seq.evaluation import translation_scores
from keras_seq.tasks.text import pad
from keras_seq.tasks.translation import Translation
from keras_seq.tasks.translation_problem import Prediction
from keras_seq.tasks.translator import Translator

SMALL = {"width": 16, "dropout": 0.0}


@pytest.fixture(scope="module")
def problem():
    return Translation(
        data="builtin:dates", tokenizer="characters", embedding=16, max_length=12, beam=2
    ).prepare()


@pytest.fixture(scope="module")
def model(problem):
    model = problem.build("seq2seq_attention", **SMALL)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.4, weight.shape))
    return model


@pytest.fixture(scope="module")
def prediction(problem, model):
    few = Translation(
        data="builtin:dates",
        tokenizer="characters",
        embedding=16,
        max_length=12,
        beam=1,
        validation_fraction=0.004,
        test_fraction=0.004,
    ).prepare()
    assert few.tokenizers[0].size == model.output["logits"].shape[-1]
    return few, few.predict(model)


def write(folder, name, lines):
    path = folder / name
    text = "".join(f"{line}\n" for line in lines)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def test_parts_are_apart(problem):
    sources = {part: set(pairs.source) for part, pairs in problem.pairs.items()}
    assert {part: len(pairs) for part, pairs in problem.pairs.items()}["test"] == pytest.approx(
        500, abs=30
    )
    assert not sources["test"] & sources["train"]
    assert not sources["validation"] & sources["test"]
    again = Translation(data="builtin:dates", tokenizer="characters").prepare()
    assert again.pairs["test"].source == problem.pairs["test"].source


def test_translations_are_those_of_the_search(prediction, model):
    few, found = prediction
    parts = search_model(model, hypotheses=1, length=12)
    for part in ("validation", "test"):
        pairs = few.pairs[part]
        assert len(found.texts[part]) == len(pairs) > 10
        ids = pad([few.tokenizers[0].encode(s) for s in pairs.source])
        for text, tokens in zip(
            found.texts[part], greedy_search(parts, ids).tokens[:, 0], strict=True
        ):
            assert text == few.tokenizers[1].decode(strip(tokens))


def test_perplexity_counts_every_token_and_the_end_once(prediction, model):
    few, found = prediction
    total, count = 0.0, 0
    for source, target in zip(few.pairs["test"].source, few.pairs["test"].target, strict=True):
        ids = few.tokenizers[0].encode(target)
        fed = np.concatenate([[2], ids])[None]
        x = {"source": few.tokenizers[0].encode(source)[None], "tokens": fed.astype("int32")}
        logs = tf.nn.log_softmax(model(x, training=False)["logits"]).numpy()[0]
        wanted = np.concatenate([ids, [3]])
        total += logs[np.arange(len(wanted)), wanted].sum()
        count += len(wanted)
    assert len(found.log_probabilities["test"]) == count
    scores = few.scores(found)
    assert scores["perplexity"] == pytest.approx(np.exp(-total / count), rel=1e-4)


def test_perfect_translations_have_the_best_scores(problem):
    perfect = Prediction({part: problem.pairs[part].target for part in ("validation", "test")})
    scores = problem.scores(perfect)
    # An ISO date is one word for BLEU: it has no 4-grams, and the corpus score is of what it has.
    assert scores["exact_match"] == 1 and scores["chrf"] == pytest.approx(100)
    assert scores["ter"] == 0 and scores["token_accuracy"] == 1
    shuffled = Prediction(
        {part: problem.pairs[part].target[::-1] for part in ("validation", "test")}
    )
    test = problem.paired_test(problem.losses(perfect), problem.losses(shuffled))
    assert test["statistic"] < 0 and test["p"] < 0.01


def test_the_translator_says_what_the_problem_says(prediction, model):
    few, found = prediction
    translator = Translator(model, few.metadata())
    texts = few.pairs["test"].source
    assert [t[0].text for t in translator(texts)] == found.texts["test"]
    empty, padded = translator(["", texts[0]])
    assert empty[0].text == "" and padded[0].text == found.texts["test"][0]
    one = padded[0]
    assert one.alignment.shape == (len(one.target), len(one.source))
    assert_allclose(one.alignment.sum(-1), 1, atol=1e-5)
    assert "".join(one.source) == texts[0]
    wide = Translator(model, few.metadata(), beam=3)
    best = wide([texts[0]], best=3)[0]
    assert len({b.text for b in best}) == 3
    assert [b.score for b in best] == sorted((b.score for b in best), reverse=True)


def test_alignments_are_drawn(problem, model):
    found = problem.figures(model)
    assert set(found) <= {"alignment/0", "alignment/1", "alignment/2"} and found
    image = next(iter(found.values())).axes[0]
    first = problem.pairs["validation"].source[problem._shown(3)[0]]
    assert image.get_images()[0].get_array().shape[1] == len(first) or len(found) < 3
    plain = problem.build("seq2seq", **SMALL)
    assert problem.figures(plain) == {}


def test_what_is_watched_is_of_the_weights_of_that_moment(problem, model):
    """Greedy translations of fixed pairs: traced once, and read with the weights as they are."""
    pairs = problem.pairs["validation"]
    before = [w.numpy() for w in model.weights]
    problem.figures(model), problem.texts(model), problem.evaluate(model, 70)
    (search,) = problem._greedy(model)._search.traced.values()
    count = search.experimental_get_tracing_count()
    shown = []
    for factor in (1.0, 0.3):
        for weight, value in zip(model.weights, before, strict=True):
            weight.assign(value * factor)
        fresh = Translator(model, problem.metadata(), beam=1)
        lines = problem.texts(model)["translations"].splitlines()
        assert lines[0] == "| source | reference | translation |" and len(lines) == 7
        for line in lines[2:]:
            source, reference, translation = (
                html.unescape(cell.strip()) for cell in line.strip("|").split("|")
            )
            row = pairs.source.index(source)
            assert reference == pairs.target[row]
            assert translation == " ".join(fresh([source])[0][0].text.split())
        shown.append(lines)
        rows = np.linspace(0, len(pairs) - 1, 70).astype(int)
        texts = [found[0].text for found in fresh([pairs.source[i] for i in rows])]
        wanted = translation_scores(texts, [pairs.target[i] for i in rows])["bleu"]
        assert problem.evaluate(model, 70) == {"bleu": pytest.approx(wanted)}
        problem.figures(model)
    assert shown[0] != shown[1]
    assert search.experimental_get_tracing_count() == count <= 2
    for weight, value in zip(model.weights, before, strict=True):
        weight.assign(value)
    assert problem._spread(3).tolist() == [0, (len(pairs) - 1) // 2, len(pairs) - 1]
    assert problem._spread(10**6).tolist() == list(range(len(pairs)))


def test_batches_by_tokens():
    options = {"data": "builtin:dates", "tokenizer": "characters"}
    problem = Translation(**options, batch_tokens=2000).prepare()
    data = problem.data("train", None)
    batches = list(data.batches(64, seed=0, steps=data.steps_of_pass(64)))
    sizes = [x["source"].size + x["tokens"].size for x, _ in batches]
    assert max(sizes) <= 2000 and sum(sizes) > 0.8 * 2000 * len(sizes)
    each = len(problem.rows) / len(batches)
    assert sum(len(y) for _, y in batches) == len(problem.rows)
    note = f"a pass has {len(batches)} batches of up to 2,000 tokens, {each:.1f} pairs each"
    assert note in problem.notes
    padding = 1 - sum((y > 0).sum() + (x["source"] > 0).sum() for x, y in batches) / sum(sizes)
    assert f"padding is {padding:.0%} of the steps that are trained" in problem.notes
    assert problem.batches == "up to 2,000 tokens"
    assert problem.data("validation", None).batch_tokens is None
    with pytest.raises(UserError, match="30 tokens are too few for a batch"):
        Translation(**options, batch_tokens=30).prepare()


def test_what_a_translator_refuses(problem, model):
    metadata = problem.metadata()
    long = "9" * (metadata["max_tokens"] + 1)
    with pytest.raises(UserError, match=r"text 2 has 101 tokens, and the model reads 100"):
        Translator(model, metadata)(["3", long])
    assert len(Translator(model, metadata, cut=True)([long])[0][0].source) == 100
    unknown = Translator(model, metadata)(["ξ 漢字 🙂"])[0][0]
    assert len(unknown.source) == 6  # letters that it does not know are read as such
    with pytest.raises(UserError, match="--beam is 0"):
        Translator(model, metadata, beam=0)
    with pytest.raises(UserError, match="--max-length is 0"):
        Translator(model, metadata, max_length=0)
    other = Translation(data="builtin:dates", tokenizer="bytes").prepare().metadata()
    with pytest.raises(UserError, match="they are not of one run"):
        Translator(model, other)


def test_files_line_by_line(tmp_path):
    rng = np.random.default_rng(0)
    words = np.array(["a", "b", "c", "d", "e", "f", "g", "h"])
    lines = [" ".join(rng.choice(words, 5)) + f" {i}" for i in range(60)]
    upper = [line.upper() for line in lines]
    lines[7] = upper[9] = ""
    problem = Translation(
        source=write(tmp_path, "t.en.gz", lines),
        target=write(tmp_path, "t.de", upper),
        tokenizer="words",
        separate=True,
        max_tokens=8,
    ).prepare()
    assert sum(map(len, problem.pairs.values())) == 58
    assert any("2 pairs without text on a side dropped" in note for note in problem.notes)
    source, target = problem.tokenizers
    assert "a" in source.vocabulary and "A" not in source.vocabulary
    assert set(problem.metadata()) >= {"tokenizer", "target_tokenizer"}
    x, y = problem.data("train", None).batch(np.array([0]))
    pairs, row = problem.pairs["train"], problem.rows[0]
    assert source.decode(x["source"][0]) == pairs.source[row]
    assert x["tokens"][0, 0] == 2
    assert target.decode(y[0][y[0] > 0] - 1) == pairs.target[row]


def test_long_pairs_are_left_out_of_training_and_counted(tmp_path):
    lines = [f"{i} " * 3 for i in range(40)] + ["x " * 30] * 5
    problem = Translation(
        source=write(tmp_path, "a.txt", lines),
        target=write(tmp_path, "b.txt", lines),
        validation=f"{write(tmp_path, 'c.txt', lines[:9])},{write(tmp_path, 'd.txt', lines[:9])}",
        test=f"{write(tmp_path, 'e.txt', lines[:9])},{write(tmp_path, 'f.txt', lines[:9])}",
        tokenizer="words",
        max_tokens=10,
    ).prepare()
    assert len(problem.rows) == 40
    assert "5 of 45 training pairs have over 10 tokens" in " ".join(problem.notes)
    assert "the source stands in the test part too" in " ".join(problem.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--data is missing"),
        ({"source": "a"}, "--target is missing"),
        ({"data": "a", "source": "b"}, "name the training pairs twice"),
        ({"data": "a", "beam": 0}, "--beam is 0: give at least 1"),
        ({"data": "a", "max_length": 0}, "--max-length is 0"),
        ({"data": "a", "batch_tokens": -1}, "--batch-tokens is -1: give at least 0"),
        ({"data": "a", "tokenizer": "letters"}, "--tokenizer is 'letters'"),
        ({"data": "a", "tokenizer": "words", "sampling": 0.1}, "one way to cut"),
        ({"data": "a", "separate": True, "shared": "all"}, "needs one vocabulary"),
        ({"data": "a", "label_smoothing": 1.0}, "--label-smoothing is 1.0"),
        ({"data": "a", "length_penalty": -1.0}, "--length-penalty is -1.0"),
        ({"data": "a", "test": "b,c,d"}, "two files as SOURCE,TARGET"),
        ({"data": "builtin:dates", "max_tokens": 2}, "no training pair has at most 2 tokens"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(UserError, match=message):
        Translation(**options).prepare()


def test_files_of_different_length_are_told(tmp_path):
    one = write(tmp_path, "a.txt", ["x"] * 5)
    two = write(tmp_path, "b.txt", ["y"] * 4)
    with pytest.raises(UserError, match=r"a.txt has 5 lines and .*b.txt has 4"):
        Translation(source=one, target=two).prepare()


def test_only_encoder_decoders_are_for_it():
    from keras_seq.recipe import expand, make_task

    task = make_task("translation", {"data": "builtin:dates"})
    assert set(expand("all", task)) == {
        "conv_seq2seq",
        "seq2seq",
        "seq2seq_attention",
        "seq2seq_transformer",
        "t5",
    }
    with pytest.raises(UserError, match="gru cannot be trained under translation"):
        expand("gru", task)
    other = make_task("forecasting", {"data": "builtin:co2"})
    assert "seq2seq" not in expand("all", other)
    with pytest.raises(UserError, match="it is an encoder-decoder"):
        expand("seq2seq", other)
