"""Dates as people write them in four languages, with the same date in ISO 8601."""

from __future__ import annotations

import datetime
import hashlib
import random

from keras_seq.data.parallel import Pairs
from keras_seq.errors import UserError

__all__ = ["make_dates"]

# Years of two digits mean these: 50 to 99 are 19.., 00 to 49 are 20..
_FIRST, _LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)
_MOST = 200_000


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Months, months in short, weekdays from Monday on, and ways to write a date. No month's name means
# another month in another language. What figures alone say must be clear from the sign between
# them, or from the word before them:
#   dots            day.month.year
#   slashes         year/month/day where the year comes first;
#                   after "on" month/day/year; after "le" and "el" day/month/year
# A date of figures and slashes without such a word does not occur.
_LANGUAGES = {
    "English": (
        _words(
            "January February March April May June July August September October November December"
        ),
        _words("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"),
        _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
        (
            "{month} {d}, {yyyy}",
            "{month} {nth}, {yyyy}",
            "{month} {d}, '{yy}",
            "{d} {month} {yyyy}",
            "{nth} of {month} {yyyy}",
            "the {nth} of {month}, {yyyy}",
            "{weekday}, {month} {d}, {yyyy}",
            "{weekday} {d} {month} {yyyy}",
            "{weekday} the {nth} of {month} {yyyy}",
            "{short} {d}, {yyyy}",
            "{short} {nth} '{yy}",
            "{d} {short} {yyyy}",
            "{d}-{short}-{yyyy}",
            "{yyyy}/{mm}/{dd}",
            "on {m}/{d}/{yyyy}",
            "on {mm}/{dd}/{yy}",
        ),
    ),
    "German": (
        _words(
            "Januar Februar März April Mai Juni Juli August September Oktober November Dezember"
        ),
        _words("Jan. Feb. März Apr. Mai Juni Juli Aug. Sept. Okt. Nov. Dez."),
        _words("Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag"),
        (
            "{d}. {month} {yyyy}",
            "{dd}. {month} {yyyy}",
            "am {d}. {month} {yyyy}",
            "{weekday}, {d}. {month} {yyyy}",
            "{weekday}, den {d}. {month} {yyyy}",
            "den {d}. {short} {yyyy}",
            "{d}. {short} {yyyy}",
            "{d}. {month} '{yy}",
            "{d}.{m}.{yyyy}",
            "{dd}.{mm}.{yyyy}",
            "{dd}.{mm}.{yy}",
            "{weekday}, {dd}.{mm}.{yy}",
            "am {d}.{m}.{yy}",
        ),
    ),
    "French": (
        _words(
            "janvier février mars avril mai juin juillet août septembre octobre novembre décembre"
        ),
        _words("janv. févr. mars avr. mai juin juil. août sept. oct. nov. déc."),
        _words("lundi mardi mercredi jeudi vendredi samedi dimanche"),
        (
            "{nth} {month} {yyyy}",
            "le {nth} {month} {yyyy}",
            "{weekday} {nth} {month} {yyyy}",
            "le {weekday} {nth} {month} {yyyy}",
            "{nth} {short} {yyyy}",
            "le {nth} {short} {yyyy}",
            "{dd}.{mm}.{yyyy}",
            "le {d}/{m}/{yyyy}",
            "le {dd}/{mm}/{yyyy}",
            "le {dd}/{mm}/{yy}",
            "le {weekday} {dd}.{mm}.{yy}",
        ),
    ),
    "Spanish": (
        _words(
            "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre "
            "diciembre"
        ),
        _words("ene. feb. mar. abr. may. jun. jul. ago. sept. oct. nov. dic."),
        _words("lunes martes miércoles jueves viernes sábado domingo"),
        (
            "{d} de {month} de {yyyy}",
            "el {d} de {month} de {yyyy}",
            "{d} de {month} del {yyyy}",
            "{weekday}, {d} de {month} de {yyyy}",
            "el {weekday} {d} de {month} de {yyyy}",
            "{d} {short} {yyyy}",
            "el {d} de {short} de {yyyy}",
            "{dd}.{mm}.{yyyy}",
            "el {d}/{m}/{yyyy}",
            "el {dd}/{mm}/{yyyy}",
            "el {dd}/{mm}/{yy}",
        ),
    ),
}


def make_dates(count: int, *, seed: int = 0) -> Pairs:
    """Make dates as people write them in English, German, French and Spanish, and in ISO 8601.

    "3rd of March 2021", "03.03.21", "mercredi 3 mars 2021" and "March 3, '21" all become
    "2021-03-03". The data is synthetic: it teaches and tests attention, since each part of the
    answer stands at another place of the question.

    Every date has one meaning, by these rules: dots stand in day.month.year; slashes in
    year/month/day where a year of four digits comes first, in month/day/year after the English
    "on", in day/month/year after the French "le" and the Spanish "el", and nowhere else; a year
    of two digits lies in 1950 to 2049, as all do. A weekday is the right one. Some are written in
    small letters, some in capitals.

    Args:
        count: Number of pairs; no source stands twice, dates do.
        seed: Of the draw; another seed makes other pairs.

    Returns:
        The pairs, the languages mixed. The checksum is of the texts.

    Raises:
        UserError: The count is less than 1 or over 200,000.

    Example:
        >>> pairs = make_dates(1000)
        >>> for source, target in list(zip(pairs.source, pairs.target))[:3]:
        ...     print(target, source)
        2025-06-29 29 JUN. 2025
        2046-05-18 18. Mai 2046
        1987-05-24 24.05.1987
    """
    if not 1 <= count <= _MOST:
        raise UserError(f"the number of dates is {count}: give 1 to {_MOST:,}")
    draw = random.Random(f"dates {seed}")
    found: dict[str, str] = {}
    while len(found) < count:
        day = datetime.date.fromordinal(draw.randint(_FIRST.toordinal(), _LAST.toordinal()))
        found[_written(draw, day)] = day.isoformat()
    digest = hashlib.sha256()
    for source, target in found.items():
        digest.update(f"{source}\t{target}\n".encode())
    return Pairs(
        source=list(found),
        target=list(found.values()),
        notes=("synthetic dates in four languages; scores on them say nothing about translation",),
        origin="builtin:dates",
        checksum=digest.hexdigest(),
    )


def _written(draw: random.Random, day: datetime.date) -> str:
    language = draw.choice(tuple(_LANGUAGES))
    months, short, weekdays, ways = _LANGUAGES[language]
    text = draw.choice(ways).format(
        d=day.day,
        dd=f"{day.day:02d}",
        m=day.month,
        mm=f"{day.month:02d}",
        yy=f"{day.year % 100:02d}",
        yyyy=day.year,
        month=months[day.month - 1],
        short=short[day.month - 1],
        weekday=weekdays[day.weekday()],
        nth=_ordinal(day.day, language),
    )
    case = draw.random()
    return text.lower() if case < 0.15 else text.upper() if case < 0.25 else text


def _ordinal(day: int, language: str) -> str:
    """The day as it is said before a month: 1st, 2nd; in French the first alone, 1er."""
    if language == "French":
        return "1er" if day == 1 else str(day)
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{'th' if 11 <= day <= 13 else ending}"
