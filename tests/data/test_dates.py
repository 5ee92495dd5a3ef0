"""The built-in dates: one meaning each, found again by an independent reader of the rules."""

from __future__ import annotations

import datetime
import re
import time
from collections import Counter

import pytest

from keras_seq.data import make_dates
from keras_seq.errors import UserError

# Names by what begins them, written down apart from the module, with the accents.
MONTHS = (
    "jan|ene 1, feb|févr|fév 2, mar|mär 3, apr|abr|avr 4, may|mai 5, jun|juin 6, jul|juil 7, "
    "aug|ago|août 8, sep 9, oct|okt 10, nov 11, dec|dez|dic|déc 12"
)
BEGINS = {
    begin: int(number)
    for names, number in (item.split() for item in MONTHS.split(", "))
    for begin in names.split("|")
}
WEEKDAYS = (
    "monday montag lundi lunes, tuesday dienstag mardi martes, wednesday mittwoch mercredi "
    "miércoles, thursday donnerstag jeudi jueves, friday freitag vendredi viernes, saturday "
    "samstag samedi sábado, sunday sonntag dimanche domingo"
)
DAYS = {name: i for i, names in enumerate(WEEKDAYS.split(", ")) for name in names.split()}
BETWEEN = {"the", "of", "on", "am", "den", "le", "el", "de", "del"}


def meaning(text):
    """(ISO date, weekday or None) by the rules in the docstring of `make_dates`."""
    text = text.lower()
    weekday = None
    for name, number in DAYS.items():
        if re.match(rf"(?:le |el )?{name}\b", text):
            weekday = number

    def year_of(digits):
        year = int(digits)
        return year if len(digits) == 4 else year + (1900 if year >= 50 else 2000)

    if found := re.search(r"(\d+)\.(\d+)\.(\d+)", text):
        day, month, year = found.groups()
    elif found := re.fullmatch(r"(\d{4})/(\d+)/(\d+)", text):
        year, month, day = found.groups()
    elif found := re.fullmatch(r"(on|le|el) (\d+)/(\d+)/(\d+)", text):
        word, first, second, year = found.groups()
        month, day = (first, second) if word == "on" else (second, first)
    else:
        assert "/" not in text, text
        words = re.findall(r"'?\d+|[^\W\d]+", text)
        numbers = [w for w in words if w[-1].isdigit()]
        assert len(numbers) == 2, text
        day, year = numbers  # in every way to write a month's name, the year comes last
        assert len(year.strip("'")) == (2 if "'" in year else 4), text
        year = year.strip("'")
        names = [
            w
            for w in words
            if not w[-1].isdigit() and w not in DAYS and w not in BETWEEN | {"st", "nd", "rd", "th"}
        ]
        names = [w for w in names if w != "er"]
        assert len(names) == 1, text
        (month,) = {number for begin, number in BEGINS.items() if names[0].startswith(begin)}
    return datetime.date(year_of(year), int(month), int(day)), weekday


@pytest.fixture(scope="module")
def pairs():
    return make_dates(20_000)


def test_every_date_has_the_meaning_that_the_rules_give(pairs):
    weekdays = 0
    for source, target in zip(pairs.source, pairs.target, strict=True):
        day, weekday = meaning(source)
        assert day.isoformat() == target, source
        if weekday is not None:
            assert weekday == day.weekday(), source
            weekdays += 1
    assert weekdays > 2000


def test_what_comes(pairs):
    assert len(pairs) == len(set(pairs.source)) == 20_000
    years = [int(target[:4]) for target in pairs.target]
    assert min(years) == 1950 and max(years) == 2049
    assert set(Counter(target[5:7] for target in pairs.target)) == {
        f"{m:02d}" for m in range(1, 13)
    }
    text = "\n".join(pairs.source)
    for language in (r"\bof March\b", r"\bMärz\b", r"\bmercredi\b", r"\bde marzo\b", r"\b1er\b"):
        assert len(re.findall(language, text)) > 20, language
    assert {"1st", "2nd", "3rd", "11th", "12th", "13th", "21st", "22nd", "23rd", "31st"} <= set(
        re.findall(r"\d+(?:st|nd|rd|th)", text)
    )
    assert not re.findall(r"\b(?:1[123](?:st|nd|rd)|\d*[04-9](?:st|nd|rd))\b", text)
    assert "{" not in text and "  " not in text
    # Many ways to write a date are common: figures and names count as one each.
    ways = Counter(
        re.sub(r"\d", "0", re.sub(r"[^\W\d]{3,}", "w", source.lower())) for source in pairs.source
    )
    assert len([way for way, count in ways.items() if count > 50]) > 40
    assert "synthetic" in pairs.notes[0] and pairs.origin == "builtin:dates"


def test_it_is_the_same_every_time():
    one, two, other = make_dates(500), make_dates(500), make_dates(500, seed=1)
    assert one.source == two.source and one.checksum == two.checksum
    assert one.checksum != other.checksum and len(set(one.source) & set(other.source)) < 25
    assert make_dates(700).source[:500] == one.source


def test_it_is_fast():
    seconds = []
    for _ in range(3):
        start = time.process_time()  # of this process alone, whatever else the machine does
        make_dates(10_000)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("count", [0, 200_001])
def test_wrong_counts(count):
    with pytest.raises(UserError, match="give 1 to 200,000"):
        make_dates(count)
