"""Word vectors from the text formats of word2vec, GloVe and fastText, and what is wrong in them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from keras_seq.errors import UserError
from keras_seq.preprocessing import read_word_vectors


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_reads_the_words_that_are_wanted(tmp_path, header, zipped):
    text = ("4 2\n" if header else "") + "the 1 2\nThe 3 4\n. . -1 0.5 \nnoch 7e-1 8\n"
    path = tmp_path / ("words.vec.gz" if zipped else "words.vec")
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    wanted = ["<pad>", "The", "noch", "THE", ". .", "the"]
    vectors, known = read_word_vectors(path, wanted)
    # What has no vector of its own takes that of its small letters.
    assert (
        vectors.tolist()
        == np.float32([[0, 0], [3, 4], [0.7, 8], [1, 2], [-1, 0.5], [1, 2]]).tolist()
    )
    assert known.tolist() == [False, True, True, True, True, True]
    assert vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"good 1 2\nbad 1\n", "line 2 has 1 numbers, and the first one 2"),
        (b"good 1 2\nbad 1 x\n", "line 2, the word 'bad', has something else than 2 numbers"),
        (b"good 1 2\nbad 1 nan\n", "line 2, the word 'bad'"),
        (b"good 1 2\nb\xff 1 2\n", r"line 2 is not UTF-8 \(byte 1 of it\)"),
        (b"gut 1 2\n", "none of the 2 words"),
        (b"", "none of the 2 words"),
        (b"good\nbad\n", "line 1 has 0 numbers"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path, content, said):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_word_vectors(path, ["good", "bad"])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_word_vectors(tmp_path / "no.vec", ["good"])
