"""Reading tagged sentences."""

from __future__ import annotations

import gzip
import hashlib

import pytest

from keras_seq.data import read_conllu
from keras_seq.errors import UserError

TREE = """\
# sent_id = 1
# text = a b c d e f g h
1\tVámonos\tir\tVERB\tV\tMood=Imp\t0\troot\t_\t_
2-3\tal\t_\t_\t_\t_\t_\t_\t_\t_
2\ta\ta\tADP\tP\t_\t3\tcase\t_\t_
3\tel\tel\tDET\tD\tDefinite=Def\t1\tobl\t_\t_

# sent_id = 2
1\t#\t#\tSYM\tS\t_\t0\troot\t_\t_
1.1\tsaid\tsay\tVERB\tV\t_\t_\t_\t_\t_
2\t10 000\t10000\tNUM\tN\t_\t1\tnummod\t_\t_
"""


def put(folder, text, name="x.conllu"):
    path = folder / name
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def error_of(path, **options):
    with pytest.raises(UserError) as caught:
        read_conllu(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["x.conllu", "x.conllu.gz"])
def test_words_and_tags(tmp_path, name):
    path = put(tmp_path, TREE, name)
    table = read_conllu(path)
    assert table.words == [["Vámonos", "a", "el"], ["#", "10 000"]]
    assert table.tags == [["VERB", "ADP", "DET"], ["SYM", "NUM"]]
    assert table.report == ("2 lines of joined or left-out words skipped",)
    assert table.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_conllu(path, column="xpos").tags[0] == ["V", "P", "D"]
    assert read_conllu(path, column="feats").tags[0] == ["Mood=Imp", "_", "Definite=Def"]


def test_two_columns(tmp_path):
    want = [["Ann", "Lee", "sleeps"], ["#", "1"]]
    tags = [["B-PER", "I-PER", "O"], ["O", "O"]]
    for mark in ("\t", " "):
        lines = [f"{w}{mark}{t}" for w, t in zip(want[0], tags[0], strict=True)]
        text = "\r\n".join([*lines, "", "", f"#{mark}O", f"1{mark}O"])
        table = read_conllu(put(tmp_path, text, "x.txt"))
        assert table.words == want and table.tags == tags and table.report == ()


def test_four_columns_have_the_tag_last(tmp_path):
    text = "-DOCSTART- -X- -X- O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n"
    table = read_conllu(put(tmp_path, text))
    assert table.words == [["EU", "rejects"]] and table.tags == [["B-ORG", "O"]]


def test_errors_name_the_line(tmp_path):
    bad = TREE.replace("3\tel\tel", "x\tel\tel")
    assert "line 6: the ID is 'x'" in error_of(put(tmp_path, bad))
    assert "line 6 has 9 columns" in error_of(put(tmp_path, TREE.replace("el\tel\tDET", "el\tDET")))
    assert "line 2: 'word' has one column" in error_of(put(tmp_path, "a\tO\nword\n"))
    assert "line 2: the tag is blank" in error_of(put(tmp_path, "a\tO\nb\t\n"))
    assert "line 1: the word is blank" in error_of(put(tmp_path, "\tO\n"))
    none = TREE.replace("\tP\t", "\t_\t")
    assert "line 5: the word 'a' has no xpos tag" in error_of(put(tmp_path, none), column="xpos")


def test_files_that_will_not_do(tmp_path):
    assert "upos, xpos, feats" in error_of(put(tmp_path, TREE), column="ner")
    assert "no sentences" in error_of(put(tmp_path, "# only a comment\n\n"))
    assert "is empty" in error_of(put(tmp_path, ""))
    assert "no such file" in error_of(tmp_path / "none.conllu")
    assert "byte 3 is 0xe9" in error_of(put(tmp_path, b"caf\xe9\tO\n"))


@pytest.mark.realdata
def test_english_web_treebank(data_path):
    counts = {"train": (12_544, 204_577), "dev": (2_001, 25_147), "test": (2_077, 25_094)}
    for part, (sentences, words) in counts.items():
        table = read_conllu(data_path / "tagging" / f"en_ewt-ud-{part}.conllu.gz")
        assert len(table.words) == sentences
        assert sum(map(len, table.words)) == sum(map(len, table.tags)) == words
        assert len({tag for tags in table.tags for tag in tags}) == 17
