"""The file that runs on a device: alone, without our package, it gives the same ids."""

from __future__ import annotations

import ast
import subprocess
import sys
import unicodedata
from importlib.resources import files

import pytest

from keras_seq.preprocessing.device_tokenizer import (
    BLANK_RANGES,
    SPECIAL,
    WORD_RANGES,
    DeviceTokenizer,
    byte_letters,
    lower,
    parse_ranges,
    split_chunks,
    split_words,
)
from tests.preprocessing.samples import HARD, TEXTS


def test_it_imports_the_standard_library_only():
    source = files("keras_seq.preprocessing").joinpath("device_tokenizer.py").read_text("utf-8")
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    assert names <= set(sys.stdlib_module_names)


def test_it_runs_alone(kind, make, tmp_path):
    tokenizer = make(kind, clean="html")
    for name, content in tokenizer.device_files().items():
        (tmp_path / name).write_bytes(content)
    lines = [text for text in (*TEXTS[:8], *HARD) if "\n" not in text and "\ud800" not in text]
    # -I: nothing of ours, and nothing installed, can be imported.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "utf8", "tokenizer.py", "tokenizer.json"],
        input="\n".join(lines).encode(),
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    got = [[int(i) for i in line.split()] for line in done.stdout.decode().splitlines()]
    assert got == [tokenizer.encode(text).tolist() for text in lines]
    device = DeviceTokenizer.from_file(tmp_path / "tokenizer.json")
    assert device.encode(lines[0]) == got[0] and device.pieces(lines[0]) == tokenizer.tokens(
        lines[0]
    )


def test_usage_is_shown(tmp_path):
    source = files("keras_seq.preprocessing").joinpath("device_tokenizer.py")
    done = subprocess.run([sys.executable, str(source)], capture_output=True, text=True)
    assert done.returncode == 1 and "usage" in done.stderr


def test_the_tables_are_those_of_unicode():
    """Against `unicodedata`, for the code points that Unicode 14 knows."""
    word, blank = set(), set()
    for table, found in ((WORD_RANGES, word), (BLANK_RANGES, blank)):
        for first, last in parse_ranges(table):
            assert first <= last
            found |= set(range(first, last + 1))
    assert not word & blank
    for point in (
        *range(0x250),
        *range(0x370, 0x600),
        *range(0x900, 0xE80),
        *range(0x2000, 0x2100),
    ):
        kind = unicodedata.category(chr(point))
        if kind == "Cn":
            continue
        expected = kind[0] in "LMN" or kind == "Pc"
        assert (point in word) == expected, f"{point:x} {kind}"
        assert (point in blank) == (kind[0] in "ZC"), f"{point:x} {kind}"


def test_every_character_has_a_lower_case_of_one_character():
    for point in range(0x110000):
        if not 0xD800 <= point < 0xE000:
            letter = chr(point)
            low = lower(letter)
            assert len(low) == 1
            assert low == letter.lower() or letter == "İ"


def test_chunks_hold_the_whole_text():
    for text in HARD:
        assert "".join(split_chunks(text)) == text
        assert all(len(chunk) <= 65 for chunk in split_chunks(text))
    assert split_chunks("a  b, c\n\nd") == ["a", " ", " b", ",", " c", "\n\n", "d"]


def test_ascii_and_other_texts_are_split_alike():
    text = "".join(chr(c) for c in range(128)) + " it's 'so' a--b_c'd' "
    assert split_words(text) == split_words(text + "\u00a0")


def test_byte_letters_are_256_that_can_be_seen():
    letters = byte_letters()
    assert len(set(letters)) == 256 and letters.isprintable() and " " not in letters
    # As in GPT-2's files.
    assert letters[ord("a")] == "a" and letters[ord(" ")] == "Ġ" and letters[ord("\n")] == "Ċ"


def test_byte_pairs_by_hand():
    """Merges in the order of training, of overlapping ones the first."""
    vocabulary = [*SPECIAL, *byte_letters(), "ab", "aa", "aab"]
    config = {"kind": "byte_pairs", "lowercase": False, "clean": "none", "vocabulary": vocabulary}
    device = DeviceTokenizer({**config, "merges": ["a b", "a a", "a ab"]})
    assert device.pieces("aab") == ["aab"]
    assert device.pieces("aaaab") == ["aa", "aab"]
    assert device.pieces("aaa") == ["aa", "a"]


@pytest.mark.parametrize(("key", "value"), [("kind", "x"), ("clean", "x")])
def test_a_configuration_from_the_future(key, value):
    config = {"kind": "words", "lowercase": True, "clean": "none", "vocabulary": list(SPECIAL)}
    with pytest.raises(ValueError, match="not known here"):
        DeviceTokenizer({**config, key: value})
