"""Short film reviews made by a grammar of our own, in which the order of the words decides."""

from __future__ import annotations

import hashlib
import random

from keras_seq.data.text import TextTable
from keras_seq.errors import UserError

__all__ = ["make_reviews"]


def _words(text: str) -> list[str]:
    return text.split()


# {s} is what the sentence says in the end, {o} the opposite; a sentence holds each as often as
# the other. So the review of the other label has the same words in another order, and a bag of
# words knows nothing. Which comes first, the place of "not", and whose opinion it is all matter.
_SENTENCES = (
    "the {n} was not {o} but {s}",
    "the {n} was {s} , not {o}",
    "i would not call the {n} {o} , i would call it {s}",
    "i would call the {n} {s} , i would not call it {o}",
    "the {n} was {o} until the end , and then it was {s} and stayed so",
    "the {n} , {o} in the trailer , is {s} in the film",
    "at first the {n} seems {o} , but later you see that it is {s}",
    "the {n} is {s} , although at first it seems {o}",
    "i expected {o} {n2} and got {s} {n2}",
    "i got {s} {n2} where i expected {o} {n2}",
    "the critics called the {n} {o} , but to me it was {s}",
    "to me the {n} was {s} , but the critics called it {o}",
    "the {n} is anything but {o} and more than {s}",
    "no one who stayed awake can say that the {n} is not {s} or that it is {o}",
    "whoever finds the {n} {o} has not seen how {s} it is",
    "i never found the {n} {o} , i always found it {s}",
    "the {n} was less {o} than {s}",
    "the {n} was more {s} than {o}",
    "the {n} was {o} in the first film and is {s} in this one",
    "unlike the {o} book , this film has {s} {n2}",
    "not for a minute was the {n} {o} , it was {s} all the way",
    "far from {o} , the {n} turned out {s}",
    "they promised {o} {n2} and showed us {s} {n2}",
    "take away the {n} , which is {o} , and all the rest is {s} , and the rest is what counts",
)
# What somebody says, and whether that is so: both words stand under both labels.
_SAID = (
    "{who} told me that {x} , and that is {t}",
    "{who} says that {x} ; i have seen it , and {who2} is {r}",
    "it is {t} that {x}",
    "they write that {x} , which is {t}",
)
_TRUE = (("true", "right"), ("false", "wrong"))
_NEUTRAL = (
    "we saw it on a {day} with {who}",
    "it runs for about two hours",
    "the story takes place in {place}",
    "i had read the book before",
    "there were {many} people in the cinema",
    "it is the {nth} film of this director that i have seen",
    "{who} came along",
    "we talked about it on the way home",
)
_GOOD = _words(
    "good great wonderful moving clever funny brilliant charming gripping fresh beautiful superb "
    "touching exciting witty honest warm perfect delightful strong"
)
_BAD = _words(
    "bad awful terrible boring stupid dull weak silly clumsy stale ugly poor flat tedious lame "
    "fake cold horrible annoying empty"
)
_ONE = _words(
    "film movie plot story acting script ending dialogue music cast camera humour pace opening "
    "finale idea hero villain sound editing"
)
_MANY = _words(
    "jokes songs characters scenes pictures dialogues actors effects costumes twists chases fights"
)
_WHO = (("my sister", "she"), ("my father", "he"), ("a friend", "he"), ("my wife", "she"))
_PLACES = (
    "Paris",
    "a small town",
    "the desert",
    "London",
    "a school",
    "the north",
    "Rome",
    "a village",
)
_DAYS = _words("Sunday Monday Friday Saturday")
_COUNTS = _words("few many forty twenty some")
_NTH = _words("first second third fourth")


def make_reviews(count: int, *, seed: int = 0) -> TextTable:
    """Make short film reviews with the labels "negative" and "positive", half of each.

    The text is synthetic: it teaches and tests, it proves nothing about real reviews. Each review
    has one to three sentences of opinion, all of one mind, and up to two that say nothing. The
    words are drawn without a look at the label, and the label only sets their order ("not good
    but bad", "not bad but good"), so every set of words is as likely under both labels: a bag of
    words stays at chance, while a model that sees the order can be right every time.

    Args:
        count: Number of reviews, all different.
        seed: Of the draw; another seed makes other reviews.

    Returns:
        The reviews, in no order of labels. The checksum is of the texts and labels.

    Raises:
        UserError: The count is less than 2 or over a million.

    Example:
        >>> table = make_reviews(4)
        >>> sorted(table.labels), table.source
        (['negative', 'negative', 'positive', 'positive'], 'builtin:reviews')
    """
    if not 2 <= count <= 1_000_000:
        raise UserError(f"the number of reviews is {count}: give 2 to 1,000,000")
    draw = random.Random(f"reviews {seed}")
    labels = [i % 2 for i in range(count)]
    draw.shuffle(labels)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[_review(draw, bool(labels[len(texts)]))] = None
    names = ["positive" if label else "negative" for label in labels]
    digest = hashlib.sha256()
    for text, name in zip(texts, names, strict=True):
        digest.update(f"{name}\t{text}\n".encode())
    return TextTable(
        texts=list(texts),
        labels=names,
        source="builtin:reviews",
        checksum=digest.hexdigest(),
        report=(
            "synthetic reviews, made by a grammar in which the order of the words decides; "
            "scores on them say nothing about real reviews",
        ),
        label_name="label",
    )


def _review(draw: random.Random, positive: bool) -> str:
    sentences = [_opinion(draw, positive) for _ in range(draw.choice((1, 1, 2, 2, 3)))]
    for _ in range(draw.choice((0, 0, 1, 2))):
        sentences.insert(draw.randint(0, len(sentences)), _fill(draw, draw.choice(_NEUTRAL)))
    return " ".join(_written(sentence) for sentence in sentences)


def _opinion(draw: random.Random, positive: bool) -> str:
    if draw.random() < 0.3:
        # The words are drawn first: whether it is so must not depend on the label.
        so = draw.random() < 0.5
        true, right = _TRUE[0 if so else 1]
        said = _plain(draw, positive if so else not positive)
        return _fill(draw, draw.choice(_SAID), x=said, t=true, r=right)
    return _plain(draw, positive)


def _plain(draw: random.Random, positive: bool) -> str:
    good, bad = draw.choice(_GOOD), draw.choice(_BAD)
    said, opposite = (good, bad) if positive else (bad, good)
    return _fill(draw, draw.choice(_SENTENCES), s=said, o=opposite)


def _fill(draw: random.Random, sentence: str, **words: str) -> str:
    who, pronoun = draw.choice(_WHO)
    return sentence.format(
        n=draw.choice(_ONE),
        n2=draw.choice(_MANY),
        who=who,
        who2=pronoun,
        place=draw.choice(_PLACES),
        day=draw.choice(_DAYS),
        many=draw.choice(_COUNTS),
        nth=draw.choice(_NTH),
        **words,
    )


def _written(sentence: str) -> str:
    """As people write it: no space before a comma, capitals, a full stop."""
    words = ["I" if word == "i" else word for word in sentence.split()]
    text = " ".join(words).replace(" ,", ",").replace(" ;", ";")
    return text[0].upper() + text[1:] + "."
