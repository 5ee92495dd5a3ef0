"""Text to token ids in plain Python: the tokeniser that runs beside a model on a device.

This file needs Python 3.10 and its standard library, nothing else. It is the encoder that training
used, and a copy of it lies beside every exported LiteRT model of text:

    tokenizer = DeviceTokenizer.from_file("tokenizer.json")
    ids = tokenizer.encode("What a film!")

or, from a shell, one line of ids for each line of text:

    python tokenizer.py tokenizer.json < texts.txt

The way of a text: clean -> lower case -> split into chunks -> look the chunks up, or cut them into
pieces. The rules are the same for every language. They depend on the tables below, not on the
Unicode version of the Python that runs them (except for the lower case of letters that Unicode
14 does not know).
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from typing import Any

PADDING, UNKNOWN, START, END, MASK = range(5)
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
KINDS = ("words", "characters", "bytes", "word_pieces", "byte_pairs", "unigrams")
CLEANS = ("none", "html", "web")

# No chunk of a text is longer: work a chunk grows with the square of its length.
LONGEST = 64
# Chunks of which the ids are remembered, so that a common word is cut into pieces once.
REMEMBERED = 100_000

# Code points, in hexadecimal, that words are made of: letters, marks, digits, connectors. Unicode
# 14, with its gaps filled. Han and kana are not here: each of them is a chunk of its own.
WORD_RANGES = """
30-39 41-5a 5f 61-7a aa b2-b3 b5 b9-ba bc-be c0-d6 d8-f6 f8-2c1 2c6-2d1 2e0-2e4 2ec 2ee 300-374
376-37d 37f-383 386 388-3f5 3f7-481 483-559 560-588 591-5bd 5bf 5c1-5c2 5c4-5c5 5c7-5f2 610-61a
620-669 66e-6d3 6d5-6dc 6df-6e8 6ea-6fc 6ff 710-7f5 7fa-7fd 800-82f 840-85d 860-887 889-88f
898-8e1 8e3-963 966-96f 971-9f1 9f4-9f9 9fc 9fe-a75 a81-aef af9-b6f b71-bf2 c00-c76 c78-c7e
c80-c83 c85-d4e d54-d78 d7a-df3 e01-e3e e40-e4e e50-e59 e81-f00 f18-f19 f20-f33 f35 f37 f39
f3e-f84 f86-fbd fc6 1000-1049 1050-109d 10a0-10fa 10fc-135f 1369-138f 13a0-13ff 1401-166c
166f-167f 1681-169a 16a0-16ea 16ee-1734 1740-17d3 17d7 17dc-17ff 180b-180d 180f-193f 1946-19dd
1a00-1a1d 1a20-1a9f 1aa7 1ab0-1b59 1b6b-1b73 1b80-1bfb 1c00-1c3a 1c40-1c7d 1c80-1cbf 1cd0-1cd2
1cd4-1fbc 1fbe 1fc2-1fcc 1fd0-1fdc 1fe0-1fec 1ff2-1ffc 203f-2040 2054 2070-2079 207f-2089
2090-209f 20d0-20ff 2102 2107 210a-2113 2115 2119-211d 2124 2126 2128 212a-212d 212f-2139
213c-213f 2145-2149 214e 2150-2189 2460-249b 24ea-24ff 2776-2793 2c00-2ce4 2ceb-2cf8 2cfd
2d00-2d6f 2d7f-2dff 2e2f 302a-302f 3105-318f 3192-3195 31a0-31bf 3220-3229 3248-324f 3251-325f
3280-3289 32b1-32bf a000-a48f a4d0-a4fd a500-a60c a610-a672 a674-a67d a67f-a6f1 a717-a71f
a722-a788 a78b-a827 a82c-a835 a840-a873 a880-a8cd a8d0-a8f7 a8fb a8fd-a92d a930-a95e a960-a9c0
a9cf-a9dd a9e0-aa5b aa60-aa76 aa7a-aadd aae0-aaef aaf2-ab5a ab5c-ab69 ab70-abea abec-d7ff
fb00-fb28 fb2a-fbb1 fbd3-fd3d fd50-fdce fdf0-fdfb fe20-fe2f fe33-fe34 fe4d-fe4f fe70-fefe
ff10-ff19 ff21-ff3a ff3f ff41-ff5a ffa0-ffdf 10000-100ff 10107-10136 10140-10178 1018a-1018b
101fd-1039e 103a0-103cf 103d1-1056e 10570-10856 10858-10876 10879-1091e 10920-1093e 10980-10a4f
10a60-10a7e 10a80-10ac7 10ac9-10aef 10b00-10b38 10b40-10b98 10ba9-10eac 10eb0-10f54 10f70-10f85
10fb0-11046 11052-110ba 110c2-110cc 110d0-1113f 11144-11173 11176-111c4 111c9-111cc 111ce-111da
111dc 111e1-11237 1123e-112a8 112b0-1144a 11450-11459 1145e-114c5 114c7-115c0 115d8-11640
11644-1165f 11680-116b8 116c0-1173b 11740-1183a 118a0-11943 11950-119e1 119e3-11a3e 11a47-11a99
11a9d 11ab0-11c40 11c50-11c6f 11c72-11ef6 11fb0-11fd4 12000-1246f 12480-12ff0 13000-1342f
14400-16a6d 16a70-16af4 16b00-16b36 16b40-16b43 16b50-16e96 16f00-16fe1 16fe3-1afff 1bc00-1bc9b
1bc9d-1bc9e 1cf00-1cf4f 1d165-1d169 1d16d-1d172 1d17b-1d182 1d185-1d18b 1d1aa-1d1ad 1d242-1d244
1d2e0-1d2ff 1d360-1d6c0 1d6c2-1d6da 1d6dc-1d6fa 1d6fc-1d714 1d716-1d734 1d736-1d74e 1d750-1d76e
1d770-1d788 1d78a-1d7a8 1d7aa-1d7c2 1d7c4-1d7ff 1da00-1da36 1da3b-1da6c 1da75 1da84 1da9b-1e14e
1e290-1e2fe 1e7e0-1e95d 1ec71-1ecab 1ecad-1ecaf 1ecb1-1ed2d 1ed2f-1eeef 1f100-1f10c 1fbf0-1ffff
"""
# What only separates: blanks, controls, formats, private use, variation selectors.
BLANK_RANGES = """
0-20 7f-a0 ad 600-605 61c 6dd 70f 890-897 8e2 1680 180e 2000-200f 2028-202f 205f-206f 3000
d800-f8ff fe00-fe0f feff-ff00 fff9-fffb 110bd 110cd-110cf 13430-143ff 1bca0-1ceff 1d173-1d17a
e0001-10ffff
"""
# Between two word characters these are a part of the word: can't, l'été, soft hyphen, joiners.
JOINERS = "'\u2019\u00ad\u200c\u200d"


def parse_ranges(table):
    """Turn "30-39 5f" into [(0x30, 0x39), (0x5f, 0x5f)]."""
    pairs = (item.partition("-") for item in table.split())
    return [(int(first, 16), int(last or first, 16)) for first, _, last in pairs]


def _inside(table):
    """The same ranges as the inside of a class of a regular expression."""
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in parse_ranges(table))


_W, _B = _inside(WORD_RANGES), _inside(BLANK_RANGES)
_WORDS = re.compile(f"[{_W}]+(?:[{JOINERS}][{_W}]+)*|[^{_W}{_B}]")
# The same for texts of ASCII alone, where a short class is three times as fast.
_ASCII = "0-9A-Z_a-z"
_ASCII_WORDS = re.compile(f"[{_ASCII}]+(?:'[{_ASCII}]+)*|[^{_ASCII}\\0-\\x20\\x7f]")
_PLAIN_WORDS = re.compile(f"[{_W}]{{1,{LONGEST}}}|[^{_W}{_B}]")
# Every character is in some chunk, a blank at the head of the chunk that follows it.
_CHUNKS = re.compile(f" ?[{_W}]{{1,{LONGEST}}}| ?[^{_W} ]{{1,{LONGEST}}}| ")

# Cleaning: (regular expression, replacement) in order. Written so that Python and RE2 agree.
_BREAK = "[bB][rR]|[pP]|[dD][iI][vV]|[lL][iI]|[tT][dDhHrR]|[hH][1-6rR]|[uUoO][lL]"
_HTML = (
    (f"</?(?:{_BREAK})(?:[ /\t\r\n][^<>]*)?>", " "),
    ("</?[A-Za-z][^<>]*>", ""),
    ("&nbsp;", " "),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", '"'),
    ("&#39;", "'"),
    ("&amp;", "&"),
)
_URL = ('(?:https?://|www[.])[^ \t\r\n<>"]*', " ")
CLEANING = {"none": (), "html": _HTML, "web": (*_HTML, _URL)}


def split_words(text):
    """The words and signs of a text that is clean already."""
    return (_ASCII_WORDS if text.isascii() else _WORDS).findall(text)


def split_plain_words(text):
    """The same, but cut at apostrophes and after LONGEST characters: what word pieces cut on."""
    return _PLAIN_WORDS.findall(text)


def split_chunks(text):
    """All of a text, in chunks: a blank and what follows it. What byte pairs and unigrams cut."""
    return _CHUNKS.findall(text)


def lower(text):
    """Lower case, one character for one character: what the model file does too."""
    # The only two that Python makes longer, or different by what stands around them.
    return text.replace("\u0130", "i").replace("\u03a3", "\u03c3").lower()


def byte_letters():
    """256 printable characters, one for each byte: the alphabet of byte-pair files since GPT-2."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return "".join(chr(b) if b in plain else chr(next(rest)) for b in range(256))


class DeviceTokenizer:
    """Encode texts by the rules in a configuration, as `tokenizer.json` holds it."""

    def __init__(self, config):
        self.config = config
        self.kind = config["kind"]
        self.lowercase = bool(config["lowercase"])
        self.vocabulary = config["vocabulary"]
        # The most ids of a text that a model reads, where the file says so; which of them stay.
        self.max_tokens = config.get("max_tokens")
        self.keep = config.get("keep", "head")
        if self.kind not in KINDS or config["clean"] not in CLEANING:
            raise ValueError(f"{self.kind!r} with cleaning {config['clean']!r} is not known here")
        self._cleaning = [(re.compile(a), b) for a, b in CLEANING[config["clean"]]]
        # The special tokens never come out of a text, whatever it says.
        self._ids = {t: i for i, t in enumerate(self.vocabulary) if i >= len(SPECIAL)}
        # How a chunk is cut; words, characters and bytes are looked up as they are.
        self._cut: Any = getattr(self, f"_{self.kind}", None)
        self._known = {}  # chunk -> (ids, pieces)
        if self.kind == "word_pieces":
            self._longest = max((len(t) for t in self._ids), default=1)
        elif self.kind == "byte_pairs":
            self._letters = byte_letters()
            self._bytes = {letter: byte for byte, letter in enumerate(self._letters)}
            pairs = (tuple(merge.split(" ")) for merge in config["merges"])
            self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        elif self.kind == "unigrams":
            self._longest = max((len(t) for t in self._ids), default=1)
            self._scores = config["scores"]  # whole numbers: sums are exact on any machine

    @classmethod
    def from_file(cls, path):
        """Read the configuration from a JSON file."""
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))

    def normalise(self, text):
        """Clean the text and lower its case, as the configuration says."""
        for pattern, replacement in self._cleaning:
            text = pattern.sub(replacement, text)
        if self.lowercase:
            text = lower(text)
        if not text.isascii():
            # Half of a surrogate pair is no character, and no UTF-8 can hold it.
            text = re.sub("[\ud800-\udfff]", "\ufffd", text)
        return text

    def encode(self, text):
        """The ids of a text; of a text without tokens the unknown token alone."""
        text = self.normalise(text)
        if self.kind == "bytes":
            ids = [byte + len(SPECIAL) for byte in text.encode("utf-8")]
        elif self._cut is None:
            chunks = text if self.kind == "characters" else split_words(text)
            get = self._ids.get
            ids = [get(chunk, UNKNOWN) for chunk in chunks]
        else:
            ids = []
            for chunk in self._chunks(text):
                ids.extend(self._look(chunk)[0])
        return self.shorten(ids) or [UNKNOWN]

    def shorten(self, ids):
        """Of too many ids the first ones, or (`keep` is "ends") a quarter from the front."""
        if self.max_tokens is None or len(ids) <= self.max_tokens:
            return ids
        front = self.max_tokens // 4 if self.keep == "ends" else self.max_tokens
        return ids[:front] + ids[len(ids) - (self.max_tokens - front) :]

    def pieces(self, text):
        """What each id of `encode` stands for in this text, as a reader sees it."""
        text = self.normalise(text)
        if self.kind == "bytes":
            found = [chr(b) if b < 128 else f"<0x{b:02X}>" for b in text.encode("utf-8")]
        elif self._cut is None:
            found = list(text) if self.kind == "characters" else split_words(text)
        else:
            found = [piece for chunk in self._chunks(text) for piece in self._look(chunk)[1]]
        return found or [SPECIAL[UNKNOWN]]

    def decode(self, ids):
        """The text of ids; padding, start and end are left out."""
        ids = [int(i) for i in ids]
        wrong = [i for i in ids if not 0 <= i < len(self.vocabulary)]
        if wrong:
            raise ValueError(f"id {wrong[0]} is not in 0 to {len(self.vocabulary) - 1}")
        ids = [i for i in ids if i not in (PADDING, START, END)]
        if self.kind in ("bytes", "byte_pairs"):
            return b"".join(map(self._bytes_of, ids)).decode("utf-8", "replace")
        if self.kind in ("words", "word_pieces"):
            text = " ".join(self.vocabulary[i] for i in ids)
            return text.replace(" ##", "") if self.kind == "word_pieces" else text
        text = "".join("\ufffd" if i == UNKNOWN else self.vocabulary[i] for i in ids)
        return text.replace("\u2581", " ") if self.kind == "unigrams" else text

    def _bytes_of(self, token):
        if token == UNKNOWN:
            return "\ufffd".encode()
        if token < len(SPECIAL):
            return self.vocabulary[token].encode()
        if self.kind == "bytes":
            return bytes([token - len(SPECIAL)])
        return bytes(self._bytes[letter] for letter in self.vocabulary[token])

    def _chunks(self, text):
        return (split_plain_words if self.kind == "word_pieces" else split_chunks)(text)

    def _look(self, chunk):
        found = self._known.get(chunk)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self._known[chunk] = self._cut(chunk)
        return found

    def _word_pieces(self, word):
        """The longest piece that fits, again and again; a word that cannot be cut is unknown."""
        ids, pieces, start = [], [], 0
        while start < len(word):
            head = "##" if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                piece = head + word[start:end]
                if piece in self._ids:
                    break
            else:
                return [UNKNOWN], [word]
            ids.append(self._ids[piece])
            pieces.append(piece)
            start = end
        return ids, pieces

    def _byte_pairs(self, chunk):
        """Join the pair that training joined first, wherever it stands, until none is left."""
        parts = [self._letters[byte] for byte in chunk.encode("utf-8")]
        while len(parts) > 1:
            pairs = set(itertools.pairwise(parts))
            pair = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if pair not in self._ranks:
                break
            joined, i = [], 0
            while i < len(parts):
                if tuple(parts[i : i + 2]) == pair:
                    joined.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    joined.append(parts[i])
                    i += 1
            parts = joined
        text = [bytes(self._bytes[letter] for letter in part) for part in parts]
        return [self._ids[part] for part in parts], [t.decode("utf-8", "replace") for t in text]

    def _unigrams(self, chunk):
        """The cut with the highest sum of scores (Viterbi); of equals, the shorter last piece."""
        text = chunk.replace(" ", "\u2581")
        best, lengths = [0], []
        for end in range(1, len(text) + 1):
            top, length = best[end - 1] + self._scores[UNKNOWN], 1
            for size in range(1, min(end, self._longest) + 1):
                token = self._ids.get(text[end - size : end])
                if token is not None and best[end - size] + self._scores[token] > top:
                    top, length = best[end - size] + self._scores[token], size
            best.append(top)
            lengths.append(length)
        ids, pieces, end = [], [], len(text)
        while end:
            start = end - lengths[end - 1]
            ids.append(self._ids.get(text[start:end], UNKNOWN))
            pieces.append(chunk[start:end])
            end = start
        return ids[::-1], pieces[::-1]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tokenizer.py tokenizer.json < texts.txt")
    _tokenizer = DeviceTokenizer.from_file(sys.argv[1])
    for _line in sys.stdin:
        print(*_tokenizer.encode(_line.rstrip("\r\n")))
