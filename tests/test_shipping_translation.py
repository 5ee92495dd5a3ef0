"""What ships translates as the model does: strings in a SavedModel, LiteRT with a loop in NumPy.

The device's side runs in a process of its own that can import neither TensorFlow nor Keras nor
this package: all it has is LiteRT, NumPy and the files of the exported folder.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_seq import UserError
from keras_seq.data import make_dates
from keras_seq.tasks.translation import Translation
from keras_seq.tasks.translator import Translated, Translator
from keras_seq.translating import open_translator

pytestmark = pytest.mark.slow

BEAM, BEST, LENGTH, MOST = 3, 3, 12, 30
END = 3
# No text, blanks, signs that no tokenizer has seen, several lines, and more than is read.
BAD = ["", "  \t", "\u2003\u00a0\n", "日本 ☃ Ω\u0301", "3 May\n2021", "on 5/6/2021 " * 60]

# Architecture -> its options, and the options of the task.
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "seq2seq_attention": (
        {"width": 24, "cell": "lstm", "dropout": 0.0},
        {"tokenizer": "byte_pairs", "vocabulary": 300},
    ),
    "seq2seq_transformer": (
        {"width": 24, "depth": 1, "heads": 2, "dropout": 0.0},
        {"tokenizer": "word_pieces", "vocabulary": 200, "separate": True},
    ),
}

SERVER = """
    import json, sys
    import numpy as np
    import tensorflow as tf

    folder, texts, out = sys.argv[1:]
    with open(texts, encoding="utf-8") as file:
        texts = json.load(file)
    model = tf.saved_model.load(folder + "/1")
    translate = model.signatures["translate"]
    found = []
    for i in range(0, len(texts), 50):
        part = translate(text=tf.constant(texts[i : i + 50]))
        part = {name: value.numpy() for name, value in part.items()}
        for j in range(len(part["tokens"])):
            found.append({
                "texts": [text.decode() for text in part["translations"][j]],
                **{name: part[name][j].tolist() for name in part if name != "translations"},
            })
    with open(out, "w") as file:
        json.dump(found, file)
    assert not {"keras_seq", "tensorflow_text"} & set(sys.modules)
"""

DEVICE = """
    import json, sys

    class Refuse:
        names = ("tensorflow", "keras", "keras_hub", "keras_nlp", "keras_seq", "tensorflow_text")

        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in self.names:
                raise ModuleNotFoundError(f"{name} is not on the device", name=name)

    sys.meta_path.insert(0, Refuse())
    folder, texts, beams, out = sys.argv[1:]
    sys.path.insert(0, folder + "/litert")
    from translate import DeviceTranslator

    with open(texts, encoding="utf-8") as file:
        texts = json.load(file)
    translator = DeviceTranslator(folder + "/litert/model_float32.tflite")
    found = {}
    for beam in map(int, beams.split(",")):
        found[beam] = [
            [
                {
                    "text": one.text,
                    "score": one.score,
                    "tokens": [int(i) for i in one.tokens],
                    "alignment": None if one.alignment is None else one.alignment.tolist(),
                }
                for one in translator(text, beam=beam, best=beam)
            ]
            for text in texts
        ]
    with open(out, "w") as file:
        json.dump(found, file)
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not loaded & set(Refuse.names), loaded
"""


@dataclass(frozen=True)
class Shipped:
    """An exported folder, raw texts, and the Keras model's translations by the beam."""

    folder: Path
    texts: list[str]
    model: Any
    metadata: dict[str, Any]
    wanted: dict[int, list[list[Translated]]]
    report: dict[str, Any]

    def saved(self, folder: Path) -> Path:
        """The texts in a file."""
        path = folder / "texts.json"
        path.write_text(json.dumps(self.texts), encoding="utf-8")
        return path


def alone(source: str, *words: Any) -> None:
    """Runs a program in a process that sees neither this folder nor the user's packages."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(source), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2000:]


def drawn(problem: Any, architecture: str, options: dict[str, Any]) -> Any:
    """A network with large weights, whose texts depend on the source and end now and then."""
    model = problem.build(architecture, **options)
    rng = np.random.default_rng(7)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    samples = problem.samples(model)
    logits = np.asarray(model(samples)["logits"])[samples["tokens"] > 0]
    # So that the end is the likeliest token now and then, and not at once.
    lead = np.quantile(logits.max(-1) - logits[:, END], 0.2) - 3
    last = model.get_layer("logits")
    last.bias.assign(last.bias.numpy() + lead * np.eye(last.units)[END])
    return model


def trained(problem: Any, architecture: str, options: dict[str, Any]) -> Any:
    """A network that has begun to learn."""
    from keras_seq.training import fit

    keras.utils.set_random_seed(0)
    model = problem.build(architecture, **options)
    data = problem.data("train", model)
    how = {"epochs": 1, "steps_per_epoch": 200, "batch_size": 32, "learning_rate": 0.01}
    fit(model, data, **problem.training(), **how)
    return model


def ship(problem: Any, network: Any, folder: Path, formats: tuple[str, ...]) -> dict[str, Any]:
    """Exports as `keras-seq export` does."""
    from keras_seq.export import export

    model = problem.deployable(network)
    samples = problem.samples(model, most=16)
    record = {"architecture": network.name, "test": {"bleu": 0.0}}
    return export(
        model,
        folder,
        formats=formats,
        samples=samples,
        score=problem.shipped_score(samples),
        card=problem.card(record, {}, "keras-seq export"),
        metadata=problem.metadata(),
        endpoints=problem.endpoints(model),
        files=problem.side_files(),
    )


@pytest.fixture(scope="session", params=NETWORKS)
def shipped(request, tmp_path_factory) -> Shipped:
    """One network as it ships, moved away from where it was made."""
    folder = tmp_path_factory.mktemp(request.param)
    options, how = NETWORKS[request.param]
    pairs = make_dates(300)
    lines = [f"{s}\t{t}\n" for s, t in zip(pairs.source, pairs.target, strict=True)]
    (folder / "dates.tsv").write_text("source\ttarget\n" + "".join(lines), encoding="utf-8")
    problem = Translation(
        data=str(folder / "dates.tsv"), embedding=24, shared="none", beam=BEAM,
        max_length=LENGTH, max_tokens=MOST, test_fraction=0.3, **how,
    ).prepare()  # fmt: skip
    network = trained(problem, request.param, options)
    report = ship(problem, network, folder / "made", ("saved_model", "litert"))
    shutil.copytree(folder / "made", folder / "device")
    texts = [*BAD, *pairs.source[:150]]
    wanted = {
        beam: Translator(network, problem.metadata(), beam=beam, cut=True)(texts, best=beam)
        for beam in (1, BEAM)
    }
    return Shipped(folder / "device", texts, network, problem.metadata(), wanted, report)


def decoded(shipped: Shipped) -> Any:
    from keras_seq.preprocessing import Tokenizer

    config = shipped.metadata.get("target_tokenizer", shipped.metadata["tokenizer"])
    return Tokenizer.from_config(config)


def test_the_network_says_different_things_and_ends(shipped: Shipped):
    """Equal translations of a network that always says the same would prove nothing."""
    best = [of_text[0] for of_text in shipped.wanted[BEAM]]
    lengths = [len(one.target) for one in best]
    assert len({one.text for one in best}) > 5
    assert min(lengths[3:]) < LENGTH and [one.text for one in best[:3]] == ["", "", ""]
    assert all(one.text for one in best[6:]) and len(best[5].source) == MOST
    greedy = [of_text[0].text for of_text in shipped.wanted[1]]
    assert any(a != b.text for a, b in zip(greedy, best, strict=True))


def test_every_signature_was_proved(shipped: Shipped):
    formats = shipped.report["formats"]
    assert set(formats["saved_model"]["endpoints"]) == {"translate", "encode", "decode_step"}
    assert set(formats["litert"]["endpoints"]) == {"encode", "decode_step"}
    for entry in formats.values():
        for endpoint in entry["endpoints"].values():
            assert endpoint["status"] == "passed" and endpoint["relative_difference"] < 1e-5
    # An empty text, one that is cut, and most of the real ones.
    assert formats["saved_model"]["endpoints"]["translate"]["samples"] > 12
    assert formats["litert"]["flex"] is False
    card = (shipped.folder / "README.md").read_text("utf-8")
    assert f"more than {MOST} tokens is cut" in card and "litert/translate.py" in card


def test_strings_in_the_saved_model_are_translated_as_by_keras(shipped: Shipped, tmp_path: Path):
    alone(SERVER, shipped.folder, shipped.saved(tmp_path), tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [x["texts"] for x in found] == [[y.text for y in of] for of in shipped.wanted[BEAM]]
    tokenizer = decoded(shipped)
    for ours, theirs in zip(found, shipped.wanted[BEAM], strict=True):
        assert ours["scores"] == pytest.approx([one.score for one in theirs], abs=1e-4)
        assert [tokenizer.decode(row) for row in ours["tokens"]] == [x.text for x in theirs]
        for attended, one in zip(ours["alignments"], theirs, strict=True):
            steps, sources = len(one.target), len(one.source)
            assert np.count_nonzero(ours["source_tokens"]) == sources <= MOST
            if one.alignment is not None:
                given = np.array(attended)[:steps, :sources]
                assert given == pytest.approx(one.alignment, abs=1e-5)
    assert np.count_nonzero(found[5]["source_tokens"]) == MOST
    assert found[0]["tokens"] == np.zeros((BEST, len(found[0]["tokens"][0]))).tolist()


def test_litert_with_the_loop_beside_it_is_equal_token_for_token(shipped: Shipped, tmp_path: Path):
    alone(DEVICE, shipped.folder, shipped.saved(tmp_path), f"1,{BEAM}", tmp_path / "found.json")
    every = json.loads((tmp_path / "found.json").read_text())
    tokenizer = decoded(shipped)
    for beam, wanted in shipped.wanted.items():
        found = every[str(beam)]
        for ours, theirs in zip(found, wanted, strict=True):
            assert [one["text"] for one in ours] == [one.text for one in theirs]
            scores = [one["score"] for one in ours]
            assert scores == pytest.approx([one.score for one in theirs], abs=1e-4)
            for a, b in zip(ours, theirs, strict=True):
                ids = [i for i in a["tokens"] if i != END]
                assert tuple(tokenizer.decode([i]) or tokenizer.vocabulary[i] for i in ids) == (
                    b.target
                )
                if b.alignment is not None:
                    given = np.array(a["alignment"])[: len(b.target)]
                    assert given == pytest.approx(b.alignment, abs=1e-5)
                    assert given.shape[1] == len(b.source)


def test_the_loop_runs_from_a_shell(shipped: Shipped):
    lines = [text for text in shipped.texts if "\n" not in text]
    done = subprocess.run(
        [sys.executable, shipped.folder / "litert/translate.py",
         shipped.folder / "litert/model_float32.tflite"],
        input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, cwd="/",
        encoding="utf-8", timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    by_text = dict(zip(shipped.texts, shipped.wanted[BEAM], strict=True))
    wanted = [by_text[line][0].text for line in lines]
    assert done.stdout == "".join(f"{text}\n" for text in wanted)


@pytest.mark.parametrize("form", ["saved_model", "litert"])
def test_an_export_is_opened_and_searched_as_the_model_is(shipped: Shipped, form: str, tmp_path):
    folder = tmp_path / "export"
    away = "litert" if form == "saved_model" else "1"
    shutil.copytree(shipped.folder, folder, ignore=shutil.ignore_patterns(away))
    # Another search than that of the signature `translate`.
    how: dict[str, Any] = {"beam": 2, "length_penalty": 0.2, "max_length": 8, "cut": True}
    texts = shipped.texts[:40]
    wanted = Translator(shipped.model, shipped.metadata, **how)(texts, best=2)
    found = open_translator(folder, **how)(texts, best=2)
    for ours, theirs in zip(found, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert (a.text, a.source, a.target) == (b.text, b.source, b.target)
            assert a.score == pytest.approx(b.score, abs=1e-4)
            assert (a.alignment is None) == (b.alignment is None)
            if b.alignment is not None:
                assert a.alignment == pytest.approx(b.alignment, abs=1e-5)
    with pytest.raises(UserError, match=r"text 6 has .* tokens, and the model reads 30"):
        open_translator(folder)(BAD)
    with pytest.raises(UserError, match="--max-length is 13, and the exported file remembers 12"):
        open_translator(folder, max_length=13)(texts[6:8])


def test_the_command_line_reads_an_export(shipped: Shipped, tmp_path, capsys):
    from keras_seq.__main__ import main

    folder = tmp_path / "export"
    shutil.copytree(shipped.folder, folder, ignore=shutil.ignore_patterns("1"))
    (tmp_path / "texts.txt").write_text("\n".join(shipped.texts[6:16]) + "\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(["translate", str(folder), "--data", str(tmp_path / "texts.txt")])
    assert not stopped.value.code
    wanted = [of[0].text for of in shipped.wanted[BEAM][6:16]]
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in wanted)


def test_an_export_of_old_has_no_search(shipped: Shipped, tmp_path):
    import keras

    folder = tmp_path / "export"
    shutil.copytree(shipped.folder, folder, ignore=shutil.ignore_patterns("1", "litert"))
    x = keras.Input((1,), name="x")
    keras.Model(x, x + 1).export(folder / "1", verbose=False)
    with pytest.raises(UserError, match="no signature 'encode': export the run again"):
        open_translator(folder)


@pytest.mark.realdata
def test_a_thousand_sentences(data_path: Path, tmp_path: Path):
    """Multi30k's test sentences and joint byte pairs, a network of random weights."""
    folder = data_path / "translation"

    def lines(name: str, most: int) -> list[str]:
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            return [line.rstrip("\n") for _, line in zip(range(most), file)]  # noqa: B905

    for part, name, most in (("train", "train", 3000), ("test", "test_2016_flickr", 1000)):
        for language in ("de", "en"):
            text = "".join(f"{line}\n" for line in lines(f"{name}.{language}.gz", most))
            (tmp_path / f"{part}.{language}").write_text(text, encoding="utf-8")
    problem = Translation(
        source=str(tmp_path / "train.de"), target=str(tmp_path / "train.en"),
        test=f"{tmp_path}/test.de,{tmp_path}/test.en", vocabulary=1000, embedding=16,
        shared="none", beam=2, max_length=8, max_tokens=40,
    ).prepare()  # fmt: skip
    network = drawn(problem, "seq2seq_attention", {"width": 16})
    texts = problem.pairs["test"].source
    assert len(texts) == 1000
    wanted = [of[0] for of in Translator(network, problem.metadata(), cut=True)(texts)]
    assert len({one.text for one in wanted}) > 500
    assert np.mean([len(one.target) < 8 for one in wanted]) > 0.1
    ship(problem, network, tmp_path / "made", ("saved_model", "litert"))
    (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    alone(SERVER, tmp_path / "made", tmp_path / "texts.json", tmp_path / "server.json")
    server = json.loads((tmp_path / "server.json").read_text())
    assert [x["texts"][0] for x in server] == [one.text for one in wanted]
    scores = [x["scores"][0] for x in server]
    assert scores == pytest.approx([one.score for one in wanted], abs=1e-4)
    alone(DEVICE, tmp_path / "made", tmp_path / "texts.json", 2, tmp_path / "device.json")
    device = json.loads((tmp_path / "device.json").read_text())["2"]
    assert [x[0]["text"] for x in device] == [one.text for one in wanted]
    assert [x[0]["score"] for x in device] == pytest.approx(scores, abs=1e-4)
