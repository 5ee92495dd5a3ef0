"""Small tokenisers of every kind, trained once on a few sentences in several scripts."""

# ruff: noqa: RUF001 (letters that look like others)

from __future__ import annotations

import importlib

import pytest

TEXTS = [
    "The film isn't bad: it is a quiet, unhurried film about waiting.",
    "Unwatchable! <br /><br />I waited and waited; nothing in the film happened...",
    "Ein schöner Film über das Warten, für Große und Kleine.",
    "Фильм об ожидании. Очень хороший фильм!",
    "فيلم جميل عن الانتظار، فيلم هادئ.",
    "東京の静かな映画。とても良い映画です。",
    "यह एक बहुत अच्छी फ़िल्म है।",
    "Loved it 😀😀 10/10 &amp; more 👨‍👩‍👧 at www.example.org/film?id=3",
] * 4

# Texts that a careless rule would trip over.
HARD = [
    "",
    "   \t\n ",
    "plain",
    "İSTANBUL ΣΑΣ ǅ K",
    "don't 'quote' rock'n'roll ''' l’été",
    "שלום עולם \u202eabc\u202c مرحبا",
    "👩‍🚀🏽 ☎️ 🇩🇪 1️⃣",
    "می‌خواهم क्षत्रिय",
    "a\u0301 zero\x00byte \ufeffbom soft\u00adhyphen \ud800 half",
    "x" * 300 + " " + "é" * 200 + "!" * 150,
    "<b>bold</b><br/>new <i>line &lt;3 &amp;amp; 3 < 4 and 5 > 4 <",
    "<pad> <unk> <s> </s> <mask> ##ing ▁the",
]

# What the trainer of a kind needs beside our own dependencies.
TRAINER = {"word_pieces": "tokenizers", "byte_pairs": "tokenizers", "unigrams": "sentencepiece"}
TRAINED: dict = {}


def trained(kind: str, **options):
    """A small tokeniser; the same object for the same options."""
    if kind in TRAINER:
        try:
            importlib.import_module(TRAINER[kind])
        except ImportError:
            pytest.skip(f"{TRAINER[kind]} is not installed")
    from keras_seq.preprocessing import train_tokenizer

    key = (kind, *sorted(options.items()))
    if key not in TRAINED:
        TRAINED[key] = train_tokenizer(kind, TEXTS, **{"vocabulary": 400, **options})
    return TRAINED[key]
