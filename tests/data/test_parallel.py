"""Reading pairs of texts: every kind of file, every way in which one can be wrong, the filters."""

from __future__ import annotations

import gzip
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_seq.data import Pairs, filter_pairs, find_leaks, join_pairs, read_pairs
from keras_seq.errors import UserError

SOURCE = ["A dog runs.", "Two cats, asleep", 'He says "yes".']
TARGET = ["Ein Hund läuft.", "Zwei Katzen schlafen", 'Er sagt "ja".']


def put(folder, name, text):
    path = folder / name
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def error_of(*args, **options):
    with pytest.raises(UserError) as caught:
        read_pairs(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_two_files(tmp_path, suffix):
    # A line ends at a line feed alone; what else Unicode calls a line end belongs to the text.
    source = put(tmp_path, "a.en" + suffix, "\ufeff" + "\r\n".join(SOURCE) + "\r\na\u2028b\x85\n")
    target = put(tmp_path, "a.de" + suffix, "\n".join(TARGET) + "\n c ")
    pairs = read_pairs(str(source), target)
    assert pairs.source == [*SOURCE, "a\u2028b\x85"]
    assert pairs.target == [*TARGET, " c "]
    assert len(pairs) == 4 and pairs.notes == ()
    assert pairs.origin == f"{source}, {target}"


def test_the_checksum_is_of_both_files(tmp_path):
    one, two, three = (put(tmp_path, name, text) for name, text in zip("abc", "xyx", strict=True))
    sums = {read_pairs(a, b).checksum for a, b in ((one, two), (two, one), (one, three))}
    assert len(sums) == 3 and all(len(s) == 64 for s in sums)
    assert read_pairs(one, two).checksum == read_pairs(three, two).checksum  # the same content


def frame(source="source", target="target"):
    return pd.DataFrame({"id": [1, 2, 3], source: SOURCE, target: TARGET})


def write(folder, name, table):
    path = folder / name
    if ".csv" in name:
        table.to_csv(path, index=False)
    elif ".tsv" in name:
        lines = ["\t".join(map(str, row)) for row in (table.columns, *table.values)]
        put(folder, name, "\n".join(lines) + "\n")
    elif ".jsonl" in name:
        put(folder, name, "".join(json.dumps(r) + "\n" for r in table.to_dict("records")))
    else:
        table.to_parquet(path)
    return path


@pytest.mark.parametrize(
    "name", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"]
)
def test_a_table(tmp_path, name):
    pairs = read_pairs(write(tmp_path, name, frame()))
    assert pairs.source == SOURCE and pairs.target == TARGET and pairs.notes == ()
    pairs = read_pairs(
        write(tmp_path, name, frame("en", "de")), source_column="de", target_column="en"
    )
    assert pairs.source == TARGET and pairs.target == SOURCE
    assert len(pairs.checksum) == 64 and pairs.origin.endswith(name)


def test_a_table_longer_than_a_piece(tmp_path):
    path = put(
        tmp_path, "a.tsv", "source\ttarget\n" + "".join(f"s{i}\tt{i}\n" for i in range(20_001))
    )
    pairs = read_pairs(path)
    assert len(pairs) == 20_001
    assert all(s[1:] == t[1:] for s, t in zip(pairs.source, pairs.target, strict=True))


def test_empty_sides_are_dropped_and_counted(tmp_path):
    source = put(tmp_path, "a", "one\n\n three\n \nfive\n\n")
    target = put(tmp_path, "b", "eins\nzwei\ndrei\nvier\n\t\n\n")
    pairs = read_pairs(source, target)
    assert pairs.source == ["one", " three"] and pairs.target == ["eins", "drei"]
    assert pairs.notes == ("4 pairs without text on a side dropped: rows 2, 4, 5, 6",)
    table = put(tmp_path, "a.jsonl", '{"source": "a", "target": null}\n{"source":"b","target":"c"}')
    pairs = read_pairs(table)
    assert pairs.source == ["b"]
    assert pairs.notes == ("1 pair without text on a side dropped: row 1",)


def test_what_the_reader_of_tables_notes_is_kept(tmp_path):
    path = put(tmp_path, "a.csv", "source;target\na dog;ein Hund\n")
    assert read_pairs(path).notes == ("columns are separated by ';'",)


def test_builtin():
    pairs = read_pairs("builtin:dates")
    assert len(pairs) == 10_000 and pairs.origin == "builtin:dates"
    assert "there are dates" in error_of("builtin:date")
    assert "give no second file" in error_of("builtin:dates", "a.txt")


# -------------------------------------------------------------------------------------- errors


def test_files_of_different_length(tmp_path):
    source = put(tmp_path, "a.en", "x\n" * 1200)
    message = error_of(source, put(tmp_path, "a.de", "x\n" * 1199))
    assert "a.en has 1,200 lines" in message and "a.de has 1,199" in message
    assert "line n" in message
    message = error_of(source, put(tmp_path, "a.de", "x\n" * 1200 + "\n \n"))
    assert "1,202" in message and "are empty: delete them" in message


def test_wrong_encoding_names_the_byte(tmp_path):
    good = put(tmp_path, "a.en", "cafe\n")
    assert "a.de is not UTF-8: byte 3 is 0xe9" in error_of(good, put(tmp_path, "a.de", b"caf\xe9"))
    packed = put(tmp_path, "b.gz", b"caf\xe9\n")
    assert "byte 3 of the unpacked text" in error_of(packed, good)
    wide = put(tmp_path, "c.de", "é\n".encode("utf-16"))
    assert "looks like UTF-16" in error_of(good, wide)
    table = put(tmp_path, "a.csv", "source,target\ncafé,x\n".encode("latin-1"))
    assert "byte 17 is 0xe9" in error_of(table)


def test_missing_columns_offer_near_names(tmp_path):
    path = write(tmp_path, "a.csv", frame("english", "german"))
    message = error_of(path, source_column="englisch", target_column="german")
    assert "no column 'englisch'" in message and "did you mean 'english'?" in message
    message = error_of(path, source_column="english", target_column="germane")
    assert "did you mean 'german'?" in message
    assert "columns of the first row: id, english, german" in error_of(path)
    message = error_of(path, source_column="english", target_column="id")
    assert "'id' holds numbers" in message
    assert "given twice" in error_of(path, source_column="id", target_column="id")


def test_lists_are_no_text(tmp_path):
    path = put(tmp_path, "a.jsonl", '{"source": "a", "target": ["b", "c"]}\n')
    assert "line 1: 'target' is no text" in error_of(path)


def test_wrong_files(tmp_path):
    text, empty = put(tmp_path, "a.en", "x\n"), put(tmp_path, "b.en", "")
    table = write(tmp_path, "a.csv", frame())
    assert "a.csv is a table: give it alone" in error_of(text, table)
    assert "a.en has no targets" in error_of(text)
    assert "is empty" in error_of(text, empty) and "is empty" in error_of(empty, text)
    assert "no such file" in error_of(tmp_path / "a.fr", text)
    assert "did you mean" in error_of(tmp_path / "a.cs")
    assert "is a folder" in error_of(tmp_path) and "is a folder" in error_of(text, tmp_path)
    assert "is given twice" in error_of(text, text)
    assert "header but no rows" in error_of(put(tmp_path, "c.csv", "source,target\n"))
    assert "header but no rows" in error_of(put(tmp_path, "d.tsv", "source\ttarget\n"))
    blank = put(tmp_path, "e.en", "\n")
    assert "no pair with text on both sides" in error_of(text, blank)
    with pytest.raises(ValueError, match="2 sources and 1 targets"):
        Pairs(["a", "b"], ["c"])


# ------------------------------------------------------------------------------------- filters

MIXED = Pairs(
    ["one two three", "a", "same", "a", "a", "abcd", "three"],
    ["x", "b c d e", " same ", "b", "b ", "x", "drei"],
    ("read",),
)


@pytest.mark.parametrize(
    ("options", "left", "said"),
    [
        ({"max_words": 2}, [2, 3, 4, 5, 6], "2 of 7 pairs dropped, a side has over 2 words"),
        ({"max_characters": 6}, [2, 3, 4, 5, 6], "over 6 characters: such as 'one two three'"),
        ({"max_ratio": 4}, [2, 3, 4, 5, 6], "over 4 times the characters of the other"),
        ({"max_ratio": 3.9}, [2, 3, 4, 6], "3 of 7 pairs dropped, a side has over 3.9 times"),
        ({"drop_identical": True}, [0, 1, 3, 4, 5, 6], "the target is the source: 'same'"),
        ({"drop_duplicates": True}, [0, 1, 2, 3, 5, 6], "1 of 7 pairs dropped, the same pair"),
        ({}, [0, 1, 2, 3, 4, 5, 6], None),
        ({"max_words": 4, "max_characters": 13, "max_ratio": 13}, [0, 1, 2, 3, 4, 5, 6], None),
    ],
)
def test_filters(options, left, said):
    found = filter_pairs(MIXED, **options)
    assert found.source == [MIXED.source[i] for i in left]
    assert found.target == [MIXED.target[i] for i in left]
    assert found.notes[0] == "read" and len(found.notes) == 1 + (said is not None)
    if said is not None:
        assert said in found.notes[1]


def test_filters_follow_each_other():
    found = filter_pairs(
        MIXED, max_words=2, max_ratio=3.9, drop_identical=True, drop_duplicates=True
    )
    assert found.source == ["a", "three"]
    assert [note[:6] for note in found.notes[1:]] == ["2 of 7", "1 of 5", "1 of 4", "1 of 3"]


def test_filters_that_will_not_do():
    for options in ({"max_words": 0}, {"max_characters": -1}, {"max_ratio": 0.5}):
        with pytest.raises(UserError, match="give at least 1"):
            filter_pairs(MIXED, **options)
    with pytest.raises(UserError, match=r"3 of 3 pairs dropped.*nothing is left"):
        filter_pairs(Pairs(["a b"] * 3, ["c"] * 3), max_words=1)


def test_leaks():
    train = Pairs(["A  Dog.", "two cats", "cafe\u0301", "new"], list("abcd"))
    held = {
        "validation": Pairs(["a dog."], ["q"]),
        "test": Pairs(["CAF\u00c9", "TWO cats", "other"], ["q", "r", "s"]),
    }
    kept = find_leaks(train, held)
    assert kept.source == train.source
    assert kept.notes == (
        "1 of 4 pairs kept, the source stands in the validation part too, whose scores they "
        "flatter: 'A Dog.'",
        "2 of 4 pairs kept, the source stands in the test part too, whose scores they flatter: "
        "such as 'two cats'",
    )
    dropped = find_leaks(train, held, drop=True)
    assert dropped.source == ["new"] and dropped.target == ["d"]
    assert [note.split(":")[0] for note in dropped.notes] == [
        "1 of 4 pairs dropped, the source stands in the validation part",
        "2 of 3 pairs dropped, the source stands in the test part",
    ]
    assert find_leaks(train, {"test": Pairs(["x"], ["y"])}).notes == ()


# ----------------------------------------------------------------------------------- real data


@pytest.mark.realdata
def test_multi30k(data_path):
    folder = data_path / "translation"
    parts = {
        name: read_pairs(folder / f"{name}.en.gz", folder / f"{name}.de.gz")
        for name in ("train", "val", "test_2016_flickr")
    }
    assert [len(part) for part in parts.values()] == [29_000, 1014, 1000]
    assert all(part.notes == () for part in parts.values())
    train = parts.pop("train")
    assert train.source[0] == "Two young, White males are outside near many bushes."
    assert train.target[0].startswith("Zwei junge weiße Männer sind im Freien")
    left = find_leaks(filter_pairs(train, drop_duplicates=True), parts, drop=True)
    assert 28_800 < len(left) < 29_000
    theirs = {text.strip() for part in parts.values() for text in part.source}
    assert not theirs & {text.strip() for text in left.source}


@given(count=st.integers(3, 40), most=st.integers(1, 3))
def test_joined_pairs_are_the_pairs_in_order(count, most):
    pairs = Pairs([f"s{i}" for i in range(count)], [f"t{i}" for i in range(count)])
    joined = join_pairs(pairs, most)
    for before, after, letter in (
        (pairs.source, joined.source, "s"),
        (pairs.target, joined.target, "t"),
    ):
        words = " ".join(after).split()
        assert words == before[: len(words)] and len(before) - len(words) < most
        assert [text.count(letter) for text in after] == [i % most + 1 for i in range(len(after))]


def test_too_few_pairs_to_join():
    with pytest.raises(UserError, match="up to 3 pairs are to be joined, and there are 2"):
        join_pairs(Pairs(["a", "b"], ["A", "B"]), 3)
    with pytest.raises(UserError, match="up to 0 pairs"):
        join_pairs(Pairs(["a"], ["A"]), 0)
