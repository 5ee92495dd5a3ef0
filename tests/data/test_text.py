"""Reading texts: every kind of file, and every way in which one can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc

import pandas as pd
import pytest

from keras_seq.data import file_checksum, iter_lines, iter_texts, read_texts
from keras_seq.errors import UserError

ROWS = [("A fine film.", "1"), ("A dull film.", "0"), ("Fine, but dull.", "0")]
ARABIC = "فيلم رائع جدا"
EMOJI = "I ❤️ it 👩‍👩‍👧 🇫🇷!"


def put(folder, text, name="x.csv"):
    path = folder / name
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def error_of(path, **options):
    with pytest.raises(UserError) as caught:
        read_texts(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    "name", ["x.csv", "x.csv.gz", "x.tsv", "x.tsv.gz", "x.jsonl", "x.jsonl.gz", "x.parquet"]
)
def test_every_kind_of_file(tmp_path, name):
    frame = pd.DataFrame(ROWS, columns=["text", "label"])
    path = tmp_path / name
    if "parquet" in name:
        frame.to_parquet(path)
    elif "jsonl" in name:
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    table = read_texts(path)
    assert table.texts == [text for text, _ in ROWS]
    assert table.labels == [label for _, label in ROWS]
    assert table.report == () and table.label_name == "label" and table.source == str(path)
    assert table.checksum == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder(tmp_path):
    for name, text in [("pos/b.txt", "good"), ("pos/a.txt", "fine\nfilm"), ("neg/a.txt", "bad")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "README.md").write_text("no text of it")
    (tmp_path / "loose.txt").write_text("no label")
    table = read_texts(tmp_path)
    assert table.texts == ["bad", "fine\nfilm", "good"]
    assert table.labels == ["neg", "pos", "pos"]
    assert "1 .txt files outside" in table.report[0]
    before = file_checksum(tmp_path)
    assert before == table.checksum
    (tmp_path / "pos" / "a.txt").write_text("other")
    assert file_checksum(tmp_path) != before
    assert read_texts(tmp_path, label_column=None).labels is None
    assert len(read_texts(tmp_path, label_column=None).texts) == 4


def test_a_folder_without_label_folders(tmp_path):
    assert "LABEL/*.txt" in error_of(tmp_path)
    (tmp_path / "a.txt").write_text("one")
    assert "LABEL/*.txt" in error_of(tmp_path)
    table = read_texts(tmp_path, need_labels=False)
    assert table.texts == ["one"] and table.labels is None


def test_several_fields_are_joined(tmp_path):
    path = put(tmp_path, "title,body,label\nUp,a film,1\nDown,no film,0\n")
    table = read_texts(path, text_columns=["title", "body"])
    assert table.texts == ["Up \na film", "Down \nno film"]
    assert read_texts(path, text_columns="body").texts == ["a film", "no film"]


def test_quotes_in_csv_and_none_in_tsv(tmp_path):
    csv = put(tmp_path, 'text,label\n"He said ""no"",\nthen left",a\nplain,b\n')
    assert read_texts(csv).texts == ['He said "no",\nthen left', "plain"]
    tsv = put(tmp_path, 'text\tlabel\n"Never", he said\ta\n5" long \'tis\tb\r\n', "x.tsv")
    assert read_texts(tsv).texts == ['"Never", he said', "5\" long 'tis"]
    assert read_texts(tsv).labels == ["a", "b"]


def test_line_ends_inside_of_a_text_are_kept(tmp_path):
    path = put(tmp_path, "text\tlabel\na\rb\u2028c\x0bd\ta\nx\tb\n", "x.tsv")
    assert read_texts(path).texts == ["a\rb\u2028c\x0bd", "x"]


def test_semicolons_and_a_mark_at_the_start(tmp_path):
    path = put(tmp_path, b"\xef\xbb\xbftext;label\na b;1\nc;0\n")
    table = read_texts(path)
    assert table.texts == ["a b", "c"] and "';'" in table.report[0]


def test_whole_numbers_stay_whole(tmp_path):
    pd.DataFrame({"text": ["a", "b"], "label": [0, 1]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"text": ["a", "b"], "label": [0.0, 1.0]}).to_parquet(tmp_path / "b.parquet")
    put(tmp_path, '{"text": "a", "label": 0}\n{"text": "b", "label": 1.0}\n', "c.jsonl")
    put(tmp_path, "text,label\na, 0\nb,1\n", "d.csv")
    for name in ("a.parquet", "b.parquet", "c.jsonl", "d.csv"):
        assert read_texts(tmp_path / name).labels == ["0", "1"], name


def test_several_labels_of_one_text(tmp_path):
    lines = [{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": ["y"]}]
    path = put(tmp_path, "\n".join(map(json.dumps, lines)), "x.jsonl")
    table = read_texts(path)
    assert table.labels == ["x,y", "y"] and "joined by ','" in table.report[0]
    pd.DataFrame(lines).to_parquet(tmp_path / "x.parquet")
    assert read_texts(tmp_path / "x.parquet").labels == ["x,y", "y"]
    path = put(tmp_path, "text\tlabel\na\tx|y\nb\ty\n", "x.tsv")
    assert read_texts(path).labels == ["x|y", "y"]


def test_new_data_may_lack_labels(tmp_path):
    path = put(tmp_path, "text,other\na,1\nb,2\n")
    table = read_texts(path, need_labels=False)
    assert table.labels is None and table.label_name == ""
    table = read_texts(put(tmp_path, "text,label\na,1\nb,\n"), need_labels=False)
    assert table.labels is None and "row 2" in table.report[0]
    table = read_texts(put(tmp_path, "text,label\na,1\nb,1\n"), need_labels=False)
    assert table.labels == ["1", "1"]
    path = put(tmp_path, '{"text": "a"}\n{"text": "b", "label": "1"}\n', "x.jsonl")
    assert read_texts(path, need_labels=False).labels is None
    assert read_texts(path, label_column=None).labels is None


def test_empty_texts_are_kept_and_counted(tmp_path):
    table = read_texts(put(tmp_path, "text,label\na,1\n,0\n  ,1\n"))
    assert table.texts == ["a", "", "  "]
    assert table.report == ("2 empty texts kept: rows 2, 3",)
    assert read_texts(put(tmp_path, "text\na\n\nb\n"), label_column=None).texts == ["a", "", "b"]
    path = put(tmp_path, '{"text": null, "label": 1}\n{"text": "b", "label": 0}\n', "x.jsonl")
    assert read_texts(path).texts == ["", "b"]
    pd.DataFrame({"text": [None, "b"], "label": ["0", "1"]}).to_parquet(tmp_path / "x.parquet")
    assert read_texts(tmp_path / "x.parquet").texts == ["", "b"]


def test_other_scripts_and_emoji(tmp_path):
    for name, mark in (("x.csv", ","), ("x.tsv.gz", "\t")):
        path = put(tmp_path, f"text{mark}label\n{ARABIC}{mark}جيد\n{EMOJI}{mark}👍\n", name)
        table = read_texts(path)
        assert table.texts == [ARABIC, EMOJI] and table.labels == ["جيد", "👍"]


def test_a_document_of_a_million_tokens(tmp_path):
    long = "word " * 1_000_000
    for name, mark in (("x.csv", ","), ("x.tsv", "\t")):
        table = read_texts(put(tmp_path, f"text{mark}label\n{long}{mark}a\nshort{mark}b\n", name))
        assert table.texts == [long, "short"]


def test_the_built_in_reviews():
    table = read_texts("builtin:reviews")
    assert set(table.labels) == {"negative", "positive"} and "synthetic" in table.report[0]
    assert file_checksum("builtin:reviews") == table.checksum
    assert sum(len(t.texts) for t in iter_texts("builtin:reviews", chunk_rows=999)) == 6000
    assert "there are reviews" in error_of("builtin:tweets")


# ------------------------------------------------------------------------------- what is wrong


def test_wrong_encoding_names_the_byte(tmp_path):
    start = "text,label\ncafé,1\n".encode()
    path = put(tmp_path, start + b"caf\xe9,0\n")
    assert f"byte {len(start) + 3} is 0xe9" in error_of(path)
    path = put(tmp_path, b"x" * 3_000_000 + b"\xe9 ", "x.tsv")  # beyond the first block
    assert "byte 3000000 is 0xe9" in error_of(path)
    path = put(tmp_path, start + b"b\xff,0\n", "x.csv.gz")
    assert f"byte {len(start) + 1} of the unpacked text" in error_of(path)
    assert "UTF-16" in error_of(put(tmp_path, "text,label\na,b\n".encode("utf-16")))
    path = put(tmp_path, "text,label\na,é".encode()[:-1])  # ends in a character
    assert "byte 13 is 0xc3" in error_of(path)
    (tmp_path / "pos").mkdir()
    put(tmp_path / "pos", b"ab\xe9", "a.txt")
    message = error_of(tmp_path)
    assert "a.txt" in message and "byte 2 is 0xe9" in message


def test_wrong_columns(tmp_path):
    path = put(tmp_path, "review,label\na,1\nb,0\n")
    assert "did you mean 'review'?" in error_of(path, text_columns="reviews")
    message = error_of(path)
    assert "no column 'text'" in message and "review, label" in message
    assert "did you mean 'label'?" in error_of(path, text_columns="review", label_column="lable")
    assert "given twice" in error_of(path, text_columns="label")
    assert "name each one once" in error_of(path, text_columns=["review", "review"])
    assert "two columns 'text'" in error_of(put(tmp_path, "text,text,label\na,b,1\n"))
    path = put(tmp_path, '{"txt": "a", "label": 1}\n', "x.jsonl")
    assert "did you mean 'txt'?" in error_of(path)
    pd.DataFrame({"txt": ["a"], "label": [1]}).to_parquet(tmp_path / "x.parquet")
    assert "did you mean 'txt'?" in error_of(tmp_path / "x.parquet")


def test_a_text_column_of_numbers(tmp_path):
    path = put(tmp_path, "id,review,label\n1,good one,1\n2,bad,0\n")
    message = error_of(path, text_columns="id")
    assert "holds numbers ('1')" in message and "did you mean 'review'?" in message
    path = put(tmp_path, '{"text": 3, "label": 1}\n', "x.jsonl")
    assert "line 1: 'text' is a number ('3')" in error_of(path)
    pd.DataFrame({"text": [1, 2], "words": ["a", "b"], "label": [1, 0]}).to_parquet(
        tmp_path / "x.parquet"
    )
    message = error_of(tmp_path / "x.parquet")
    assert "int64, not text" in message and "did you mean 'words'?" in message
    # a number among texts is a text, and so is a long string of digits
    assert len(read_texts(put(tmp_path, "text,label\n10,1\nten,0\n")).texts) == 2
    path = put(tmp_path, f"text,label\n{'01' * 20},1\n{'10' * 20},0\n")
    assert len(read_texts(path).texts) == 2


def test_labels_that_will_not_do(tmp_path):
    rows = "".join(f"text {i},{'' if i % 2 else 'a'}\n" for i in range(1, 21))
    message = error_of(put(tmp_path, "text,label\n" + rows))
    assert "blank in rows 1, 3, 5, 7, 9 and 5 more" in message
    assert "one class only ('a')" in error_of(put(tmp_path, "text,label\na,a\nb,a\n"))
    path = put(tmp_path, '{"text": "a", "label": 1}\n{"text": "b"}\n', "x.jsonl")
    assert "blank in row 2" in error_of(path)
    pd.DataFrame({"text": ["a", "b"], "label": ["x", None]}).to_parquet(tmp_path / "x.parquet")
    assert "blank in row 2" in error_of(tmp_path / "x.parquet")


def test_files_that_will_not_do(tmp_path):
    path = put(tmp_path, "text,label\n", "reviews.csv")
    assert "no rows" in error_of(path)
    assert "did you mean" in error_of(tmp_path / "review.csv")
    assert "name must end in" in error_of(put(tmp_path, "a", "x.doc"))
    assert "is empty" in error_of(put(tmp_path, "", "empty.csv"))
    (tmp_path / "half.csv.gz").write_bytes(gzip.compress(b"text,label\na,1\n" * 999)[:-20])
    assert "not a whole gzip file" in error_of(tmp_path / "half.csv.gz")
    (tmp_path / "no.csv.gz").write_bytes(b"text,label\n")
    assert "not a whole gzip file" in error_of(tmp_path / "no.csv.gz")
    assert "not a whole Parquet file" in error_of(put(tmp_path, "text", "no.parquet"))
    assert "binary" in error_of(put(tmp_path, b"a\0b,c\n1,2\n", "zero.csv"))


def test_rows_that_will_not_do(tmp_path):
    message = error_of(put(tmp_path, "text,label\nfine,1\ngood, or bad,0\n"))
    assert "row 2 has 3 fields, the header has 2" in message and "quotes" in message
    assert "row 1 has 3 fields" in error_of(put(tmp_path, "text\tlabel\na\tb\t1\n", "x.tsv"))
    assert "quotes do not match" in error_of(put(tmp_path, 'text,label\n"a,1\nb,0\n'))
    assert "line 2 is not JSON" in error_of(
        put(tmp_path, '{"text": "a", "label": 1}\n{"te\n', "x.jsonl")
    )
    assert "no JSON object" in error_of(put(tmp_path, '["a", 1]\n', "x.jsonl"))
    path = put(tmp_path, '{"text": "a", "label": 1}\n{"label": 2}\n', "x.jsonl")
    assert "line 2: no column 'text'" in error_of(path)


# ----------------------------------------------------------------------------------- streaming


@pytest.mark.parametrize("name", ["x.csv", "x.tsv.gz", "x.jsonl", "x.parquet"])
def test_pieces_are_the_whole(tmp_path, name):
    frame = pd.DataFrame(
        {"text": [f"text {i}" for i in range(25)], "label": ["a", "b"] * 12 + ["a"]}
    )
    frame.loc[13, "text"] = ""
    path = tmp_path / name
    if "parquet" in name:
        frame.to_parquet(path, row_group_size=7)
    elif "jsonl" in name:
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    pieces = list(iter_texts(path, chunk_rows=10))
    assert [text for p in pieces for text in p.texts] == list(frame["text"])
    assert [label for p in pieces for label in p.labels] == list(frame["label"])
    assert max(len(p.texts) for p in pieces) <= 10 and all(p.checksum == "" for p in pieces)
    assert [n for p in pieces for n in p.report] == ["1 empty text kept: row 14"]


def test_a_piece_with_a_blank_label_names_its_row(tmp_path):
    rows = "".join(f"text {i},{'a' if i != 17 else ''}\n" for i in range(1, 21))
    pieces = iter_texts(put(tmp_path, "text,label\n" + rows), chunk_rows=5)
    assert [len(next(pieces).texts) for _ in range(3)] == [5, 5, 5]
    with pytest.raises(UserError, match="blank in row 17"):
        next(pieces)


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_streaming_does_not_hold_the_file(tmp_path, name):
    rows, text = 60_000, "a film that is neither good nor bad " * 5
    path = tmp_path / name
    with path.open("w") as file:
        mark = "\t" if "tsv" in name else ","
        if "jsonl" not in name:
            file.write(f"text{mark}label\n")
        line = json.dumps({"text": text, "label": "a"}) if "jsonl" in name else f"{text}{mark}a"
        for _ in range(rows):
            file.write(line + "\n")
    assert path.stat().st_size > 10_000_000
    tracemalloc.start()
    count = sum(len(table.texts) for table in iter_texts(path, chunk_rows=1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == rows
    assert peak < 2_000_000


def test_lines(tmp_path):
    path = put(tmp_path, "To be\r\n\n or not\u2028to be \n", "x.txt.gz")
    assert list(iter_lines(path)) == ["To be", "", " or not\u2028to be "]
    with pytest.raises(UserError, match="byte 2 is 0xe9"):
        list(iter_lines(put(tmp_path, b"ab\xe9", "x.txt")))
    with pytest.raises(UserError, match="no such file"):
        list(iter_lines(tmp_path / "none.txt"))


@pytest.mark.realdata
def test_imdb(data_path):
    table = read_texts(data_path / "sentiment" / "imdb_train.tsv.gz")
    assert len(table.texts) == 25_000 and table.report == ()
    assert {name: table.labels.count(name) for name in set(table.labels)} == {
        "0": 12_500,
        "1": 12_500,
    }
