"""Scores and paired tests of translations and other texts: sacreBLEU and NumPy, no TensorFlow.

One reference a sentence. BLEU, chrF and TER are scores of a whole corpus: counts are added up over
the sentences and put into a formula once. So what is kept of a sentence are its counts
(`sentence_statistics`), and a bootstrap adds up the counts of the sentences that it draws.

METEOR is left out: it needs WordNet, which would have to be downloaded.

Shapes in axis letters: N sentences, K counts of a sentence, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sacrebleu import BLEU, CHRF, TER, extract_char_ngrams

from keras_seq.evaluation.classification import ExampleTest

__all__ = [
    "TOKENISERS",
    "LengthScore",
    "bleu_by_length",
    "corpus_interval",
    "corpus_score",
    "corpus_test",
    "rouge_l",
    "sentence_scores",
    "sentence_statistics",
    "tokenised_note",
    "translation_scores",
    "translation_signatures",
]

Floats = NDArray[np.float64]

#: Rules by which BLEU splits text. sacreBLEU has more; those would download a model.
TOKENISERS = ("13a", "intl", "zh", "char", "none")

_WORDS = 4  # longest n-gram of BLEU
_LETTERS = 6  # longest n-gram of chrF
_BETA = 2  # chrF: recall counts as much as precision times this, squared
_MOST_DRAWN = 2**22  # counts of one block of resamples: 32 MB


# --- scores ---------------------------------------------------------------------------------------


def translation_scores(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    tokenize: str = "13a",
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Scores translations by every usual name.

    Texts come as people write them: cased, and not split into tokens by blanks.

    - ``bleu``: sacreBLEU, 0 to 100, on cased text, with the ends of its 95 % bootstrap interval
      over sentences, ``bleu_low`` and ``bleu_high``.
    - ``bleu_lowercase``: the same on text in small letters. Papers on Multi30k print BLEU of text
      in small letters, split by the Moses script. This score splits by mteval-v13a instead, which
      differs in hyphens and apostrophes: figures are near to each other, but not the same.
    - ``chrf``: F2 of character n-grams up to 6, 0 to 100 (chrF2 without word n-grams).
    - ``ter``: edits for each 100 words of the reference, on text in small letters, split at blanks
      only; lower is better.
    - ``rouge_l``: mean of `rouge_l`, 0 to 100.
    - ``exact_match``: share of sentences that are the reference, 0 to 1, blanks aside.
    - ``token_accuracy``: share of places at which both have the same token, 0 to 1; a place that
      only one of them has counts as wrong.
    - ``length_ratio``: tokens of the hypotheses for each token of the references.

    Args:
        hypotheses: N translations.
        references: N true translations.
        tokenize: One of `TOKENISERS`: how words are told apart (not in chrF and TER). "13a" suits
            languages that part words by blanks, "zh" Chinese; "char" takes characters as words.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        Name to value. `translation_signatures` says what they are in sacreBLEU's own words.

    Raises:
        ValueError: No sentences, lists of different length, or an unknown `tokenize`.

    Example:
        >>> scores = translation_scores(["The cat sat on a mat."], ["The cat sat on the mat."])
        >>> {name: round(scores[name], 2) for name in ("bleu", "chrf", "ter", "rouge_l")}
        {'bleu': 48.89, 'chrf': 65.8, 'ter': 16.67, 'rouge_l': 85.71}
        >>> scores["exact_match"], round(scores["token_accuracy"], 2)
        (0.0, 0.86)

    Reference:
        Papineni et al. 2002, BLEU; Post 2018, A Call for Clarity in Reporting BLEU Scores; Popovic
        2015, chrF; Snover et al. 2006, A Study of Translation Edit Rate; Lin 2004, ROUGE.
    """
    _check(hypotheses, references, tokenize)
    counts = sentence_statistics(hypotheses, references, "bleu", tokenize=tokenize)
    low, high = corpus_interval(counts, "bleu", resamples=resamples, seed=seed)
    small = sentence_statistics(hypotheses, references, "bleu", tokenize=tokenize, lowercase=True)
    return {
        "bleu": corpus_score(counts),
        "bleu_low": low,
        "bleu_high": high,
        "bleu_lowercase": corpus_score(small),
        "chrf": corpus_score(sentence_statistics(hypotheses, references, "chrf"), "chrf"),
        "ter": corpus_score(sentence_statistics(hypotheses, references, "ter"), "ter"),
        "rouge_l": float(rouge_l(hypotheses, references, tokenize=tokenize).mean()),
        "exact_match": _exact_match(hypotheses, references),
        "token_accuracy": _token_accuracy(hypotheses, references, tokenize),
        "length_ratio": float(counts[:, -2].sum() / max(counts[:, -1].sum(), 1)),
    }


def translation_signatures(tokenize: str = "13a") -> dict[str, str]:
    """Says what the scores of `translation_scores` are, for whoever compares figures.

    Args:
        tokenize: As given there.

    Returns:
        Name to signature: sacreBLEU's of those that sacreBLEU defines, else a sentence.

    Raises:
        ValueError: An unknown `tokenize`.

    Example:
        >>> translation_signatures()["bleu"]
        'nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:...'
    """
    _check([""], [""], tokenize)
    metrics = {
        "bleu": BLEU(tokenize=tokenize),
        "bleu_lowercase": BLEU(tokenize=tokenize, lowercase=True),
        "chrf": CHRF(),
        "ter": TER(),
    }
    found = {}
    for name, metric in metrics.items():
        metric.corpus_score(["a"], [["a"]])  # a signature holds the number of references
        found[name] = str(metric.get_signature())
    tokens = f"tokens by {tokenize}, small letters"
    found["rouge_l"] = f"F1 of the longest common subsequence, {tokens}, mean over sentences"
    found["exact_match"] = "cased, blanks aside"
    found["token_accuracy"] = f"same token at the same place, tokens by {tokenize}, cased"
    return found


def tokenised_note(texts: Sequence[str]) -> str:
    """Tells whether texts look as if they had been split into tokens already.

    BLEU splits text by its own rules. Of text that something else has split before, it is another
    score, and does not compare with that of the text as it was written.

    Args:
        texts: References or hypotheses.

    Returns:
        What to tell the user, or "" where a full stop stands beside its word.

    Example:
        >>> tokenised_note(["A man sleeps.", "Two dogs run."])
        ''
        >>> tokenised_note(["a man sleeps .", "two dogs run ."])[:40]
        '2 of 2 sentences end in a blank and a fu'
    """
    ends = sum(text.rstrip().endswith(" .") for text in texts)
    if ends <= len(texts) / 10:
        return ""
    return (
        f"{ends:,} of {len(texts):,} sentences end in a blank and a full stop: they look split "
        "into tokens, and their BLEU does not compare with that of running text"
    )


# --- counts of a sentence, and what they add up to ------------------------------------------------


def sentence_statistics(
    hypotheses: Sequence[str],
    references: Sequence[str],
    metric: str = "bleu",
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
) -> Floats:
    """Counts what a corpus score is made of, sentence by sentence.

    Args:
        hypotheses: N translations.
        references: N true translations.
        metric: ``"bleu"``, ``"chrf"`` or ``"ter"``.
        tokenize: One of `TOKENISERS`, for BLEU.
        lowercase: Whether BLEU takes small letters; chrF is cased, TER is not.

    Returns:
        (N, K). Of BLEU matching n-grams of 1 to 4 words, all n-grams of the hypothesis, and the
        words of hypothesis and reference. Of chrF, n-grams of 1 to 6 letters of the hypothesis,
        those of the reference, and matching ones. Of TER the edits and the words of the reference.
        Rows may be averaged over the seeds of a system: the score is then of all of them together.

    Raises:
        ValueError: No sentences, lists of different length, or an unknown name.

    Example:
        >>> sentence_statistics(["the cat"], ["the cat sat"]).tolist()
        [[2.0, 1.0, 0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 2.0, 3.0]]
    """
    _check(hypotheses, references, tokenize)
    pairs = list(zip(hypotheses, references, strict=True))
    if metric == "bleu":
        # What effective_order changes is the score of a sentence, not its counts.
        bleu = BLEU(tokenize=tokenize, lowercase=lowercase, force=True, effective_order=True)
        scored = (bleu.sentence_score(ours, [theirs]) for ours, theirs in pairs)
        rows = [[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scored]
    elif metric == "chrf":
        rows = [_letter_counts(ours, theirs) for ours, theirs in pairs]
    elif metric == "ter":
        ter = TER()
        found = (ter.sentence_score(ours, [theirs]) for ours, theirs in pairs)
        rows = [[s.num_edits, s.ref_length] for s in found]
    else:
        raise ValueError(f"metric is {metric!r}; give one of {', '.join(_SCORES)}")
    return np.array(rows, np.float64)


def corpus_score(statistics: ArrayLike, metric: str = "bleu") -> float:
    """Gives the score of a corpus from the counts of its sentences.

    Args:
        statistics: (N, K) from `sentence_statistics`.
        metric: The one that they are of.

    Returns:
        0 to 100; of TER 0 or more.

    Raises:
        ValueError: Counts of another shape, or an unknown metric.

    Example:
        >>> rows = sentence_statistics(["a b c d e", "f g h i"], ["a b c d e", "f g h j"])
        >>> round(corpus_score(rows), 2)  # (8/9 * 6/7 * 4/5 * 2/3) ** (1/4)
        79.84
    """
    rows = _rows(statistics, metric)
    return float(_SCORES[metric](rows.sum(axis=0)))


def sentence_scores(statistics: ArrayLike, metric: str = "bleu") -> Floats:
    """Scores each sentence on its own, from its counts.

    Args:
        statistics: (N, K) from `sentence_statistics`.
        metric: The one that they are of.

    Returns:
        (N,). BLEU of a sentence takes n-grams only as long as the sentence is, and half, a quarter,
        ... of a match where an order has none (sacreBLEU's `effective_order` with `exp` smoothing).
        Its mean is not the BLEU of the corpus.

    Raises:
        ValueError: Counts of another shape, or an unknown metric.

    Example:
        >>> rows = sentence_statistics(["a cat", "a dog"], ["a cat", "the cat"])
        >>> sentence_scores(rows).round(1).tolist()
        [100.0, 0.0]
    """
    rows = _rows(statistics, metric)
    return _bleu(rows, effective_order=True) if metric == "bleu" else _SCORES[metric](rows)


def _bleu(sums: Floats, *, effective_order: bool = False) -> Floats:
    """BLEU of counts (..., 10), as sacreBLEU has it: with the smoothing of mteval-v13a."""
    matches, totals = sums[..., :_WORDS], sums[..., _WORDS : 2 * _WORDS]
    ours, theirs = sums[..., -2], sums[..., -1]
    there = totals > 0
    none = there & (matches == 0)
    # The first order without a match gets half of one, the next a quarter, and so on.
    halved = 0.5 ** np.cumsum(none, axis=-1)
    share = np.where(none, halved, matches) / np.where(there, totals, 1.0)
    logs = np.log(np.where(there, share, 1.0))
    orders = there.sum(axis=-1) if effective_order else np.full(there.shape[:-1], _WORDS)
    mean = logs.sum(axis=-1) / np.maximum(orders, 1)
    short = np.minimum(0.0, 1 - theirs / np.where(ours > 0, ours, 1.0))
    # A text too short for an n-gram of four has no BLEU, and one without any match has 0.
    known = matches.any(axis=-1) & (ours > 0) & (effective_order | there.all(axis=-1))
    return np.where(known, 100 * np.exp(mean + short), 0.0)


def _chrf(sums: Floats) -> Floats:
    """Character F2 of counts (..., 18)."""
    ours, theirs, matches = (sums[..., i * _LETTERS : (i + 1) * _LETTERS] for i in range(3))
    there = (ours > 0) & (theirs > 0)
    orders = np.maximum(there.sum(axis=-1), 1)
    precision = np.where(there, matches / np.maximum(ours, 1), 0).sum(axis=-1) / orders
    recall = np.where(there, matches / np.maximum(theirs, 1), 0).sum(axis=-1) / orders
    both = _BETA**2 * precision + recall
    top = (1 + _BETA**2) * precision * recall
    return 100 * top / np.where(both > 0, both, 1.0)


def _ter(sums: Floats) -> Floats:
    """Edits for each 100 words of the reference, of counts (..., 2)."""
    edits, words = sums[..., 0], sums[..., 1]
    return 100 * np.where(words > 0, edits / np.where(words > 0, words, 1.0), edits > 0)


_SCORES: dict[str, Callable[[Floats], Floats]] = {"bleu": _bleu, "chrf": _chrf, "ter": _ter}
_COUNTS = {"bleu": 2 * _WORDS + 2, "chrf": 3 * _LETTERS, "ter": 2}
_NAMES = {"bleu": "BLEU", "chrf": "chrF", "ter": "TER"}


def _letter_counts(ours: str, theirs: str) -> list[int]:
    """N-grams of the hypothesis, of the reference, and of both, by order."""
    counts: list[list[int]] = [[], [], []]
    for order in range(1, _LETTERS + 1):
        first, second = extract_char_ngrams(ours, order), extract_char_ngrams(theirs, order)
        # Where the reference is too short for an order, sacreBLEU counts none of the hypothesis.
        counts[0].append(first.total() if second else 0)
        counts[1].append(second.total())
        counts[2].append((first & second).total())
    return [number for row in counts for number in row]


# --- other scores ---------------------------------------------------------------------------------


def rouge_l(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    tokenize: str = "13a",
    lowercase: bool = True,
) -> Floats:
    """Scores each text by the words that it has in the same order as its reference: ROUGE-L.

    The longest common subsequence over the length of the hypothesis is the precision, over that of
    the reference the recall; the score is their F1. Words keep their letters and endings: the
    package rouge-score drops all but a to z and 0 to 9, so that its figures are of English only.

    Args:
        hypotheses: N texts.
        references: N true texts.
        tokenize: One of `TOKENISERS`.
        lowercase: Whether upper and lower case are the same.

    Returns:
        (N,) 0 to 100; 100 where both are empty.

    Raises:
        ValueError: No texts, lists of different length, or an unknown `tokenize`.

    Example:
        >>> rouge_l(["the dog saw a cat"], ["The cat saw the dog"]).tolist()  # "the ... dog"
        [40.0]

    Reference:
        Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries.
    """
    _check(hypotheses, references, tokenize)
    found = []
    for ours, theirs in _tokens(hypotheses, references, tokenize, lowercase):
        total = len(ours) + len(theirs)
        found.append(200 * _common(ours, theirs) / total if total else 100.0)
    return np.array(found, np.float64)


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    A row of the usual table is one whole number: a bit is 0 where the row goes up by one (Hyyro
    2004), so that a sentence is a few additions.
    """
    places: dict[str, int] = {}
    for i, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << i
    row = every = (1 << len(first)) - 1
    for token in second:
        hit = row & places.get(token, 0)
        row = ((row + hit) | (row - hit)) & every
    return len(first) - row.bit_count()


def _exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    pairs = zip(hypotheses, references, strict=True)
    return float(np.mean([ours.split() == theirs.split() for ours, theirs in pairs]))


def _token_accuracy(hypotheses: Sequence[str], references: Sequence[str], tokenize: str) -> float:
    right = places = 0
    for ours, theirs in _tokens(hypotheses, references, tokenize, False):
        right += sum(a == b for a, b in zip(ours, theirs, strict=False))
        places += max(len(ours), len(theirs))
    return right / places if places else 1.0


def _tokens(
    hypotheses: Sequence[str], references: Sequence[str], tokenize: str, lowercase: bool
) -> list[tuple[list[str], list[str]]]:
    split = BLEU(tokenize=tokenize).tokenizer

    def tokens(text: str) -> list[str]:
        return split((text.lower() if lowercase else text).rstrip()).split()

    return [(tokens(a), tokens(b)) for a, b in zip(hypotheses, references, strict=True)]


# --- by length ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LengthScore:
    """The score of the sentences whose source has so many words.

    Args:
        shortest: Words of the shortest source in the bucket.
        longest: Words of the longest.
        count: Sentences.
        score: BLEU of them as a corpus.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
    """

    shortest: int
    longest: int
    count: int
    score: float
    low: float
    high: float


def bleu_by_length(
    hypotheses: Sequence[str],
    references: Sequence[str],
    lengths: ArrayLike,
    *,
    starts: Sequence[int] | None = None,
    buckets: int = 6,
    tokenize: str = "13a",
    lowercase: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> list[LengthScore]:
    """Scores short and long sentences apart: what a network without attention gets wrong.

    Args:
        hypotheses: N translations.
        references: N true translations.
        lengths: (N,) words or tokens of each source.
        starts: Shortest source of each bucket, ascending, such as (0, 10, 20, 30); what is shorter
            than the first is left out. None makes `buckets` of about as many sentences each.
        buckets: How many, at most.
        tokenize: One of `TOKENISERS`.
        lowercase: Whether BLEU takes small letters.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        The buckets that are not empty, short sentences first. The same sources make the same
        buckets for every system.

    Raises:
        ValueError: Lists of different length, or starts that do not ascend.

    Example:
        >>> lines = ["a b c d", "a b c d e", "a b c d e f g h i j"]
        >>> found = bleu_by_length(lines, lines, [4, 5, 10], starts=(0, 6))
        >>> [(b.shortest, b.longest, b.count, round(b.score)) for b in found]
        [(4, 5, 2, 100), (10, 10, 1, 100)]

    Reference:
        Bahdanau, Cho and Bengio 2015, Neural Machine Translation by Jointly Learning to Align and
        Translate, figure 2.
    """
    _check(hypotheses, references, tokenize)
    long = np.asarray(lengths)
    if long.shape != (len(hypotheses),):
        raise ValueError(
            f"lengths have shape {long.shape}; wanted one for each of {len(hypotheses)} sentences"
        )
    if buckets < 1:
        raise ValueError(f"buckets is {buckets}; wanted at least 1")
    if starts is None:
        # Quantiles that are lengths themselves; many equal lengths make fewer buckets.
        ranks = np.linspace(0, 1, buckets, endpoint=False)
        edges = np.unique(np.quantile(long, ranks, method="higher"))
    else:
        edges = np.asarray(starts)
        if edges.ndim != 1 or not len(edges) or (np.diff(edges) <= 0).any():
            raise ValueError(f"starts are {list(starts)}; wanted ascending numbers")
    place = np.searchsorted(edges, long, side="right") - 1
    rows = sentence_statistics(
        hypotheses, references, "bleu", tokenize=tokenize, lowercase=lowercase
    )
    found = []
    for bucket in range(len(edges)):
        ours = place == bucket
        if ours.any():
            low, high = corpus_interval(rows[ours], resamples=resamples, seed=seed)
            ends = int(long[ours].min()), int(long[ours].max())
            score = corpus_score(rows[ours])
            found.append(LengthScore(*ends, int(ours.sum()), score, low, high))
    return found


# --- intervals and tests --------------------------------------------------------------------------


def corpus_interval(
    statistics: ArrayLike,
    metric: str = "bleu",
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Gives the percentile bootstrap interval of a corpus score, over sentences.

    Args:
        statistics: (N, K) from `sentence_statistics`.
        metric: The one that they are of.
        level: What the interval holds.
        resamples: How many resamples.
        seed: Of the draw.

    Returns:
        Its ends.

    Raises:
        ValueError: Counts of another shape, an unknown metric, or an argument out of range.

    Example:
        >>> rows = sentence_statistics(["a b c d", "e f g h"] * 50, ["a b c d", "e f g i"] * 50)
        >>> low, high = corpus_interval(rows)
        >>> bool(low < corpus_score(rows) < high)
        True

    Reference:
        Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; wanted a share between 0 and 1, such as 0.95")
    drawn = _SCORES[metric](_resampled(_rows(statistics, metric), resamples, seed))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def corpus_test(
    first: ArrayLike,
    second: ArrayLike,
    metric: str = "bleu",
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> ExampleTest:
    """Tests whether two systems differ in a corpus score: the paired bootstrap over sentences.

    The same sentences are drawn for both systems, and both are scored on them. The p-value is
    twice the share of the resamples in which the other system is ahead, or none is; plus one.

    Args:
        first: (N, K) of the first system, from `sentence_statistics`, or its mean over seeds.
        second: (N, K) of the second, of the same sentences and references.
        metric: The one that they are of.
        resamples: How many resamples. The p-value can be no smaller than 2 over this.
        seed: Of the draw.

    Returns:
        As of every test of two systems: the statistic is the difference over its standard error,
        negative where the first is better, and `mean_difference` is a loss: what the first has
        LESS of BLEU or chrF than the second, or more of TER. -2 means: the first is 2 BLEU better.

    Raises:
        ValueError: Counts of different shape, an unknown metric, or no resamples.

    Example:
        >>> references = [f"this is sentence number {i % 7} of many" for i in range(50)]
        >>> good = sentence_statistics(references, references)
        >>> bad = sentence_statistics(["this is sentence number 3 of many"] * 50, references)
        >>> found = corpus_test(good, bad)
        >>> found.name, found.p_value < 0.01, found.mean_difference < 0
        ('paired bootstrap of BLEU', True, True)

    Reference:
        Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation.
    """
    ours, theirs = _rows(first, metric), _rows(second, metric)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"counts have shapes {ours.shape} and {theirs.shape}; wanted the same sentences"
        )
    sign = 1.0 if metric == "ter" else -1.0
    name = f"paired bootstrap of {_NAMES[metric]}"
    score = _SCORES[metric]
    difference = sign * float(score(ours.sum(axis=0)) - score(theirs.sum(axis=0)))
    if np.array_equal(ours, theirs):
        return ExampleTest(name, 0.0, 1.0, 0.0, "both have the same counts in every sentence")
    sums = _resampled(np.concatenate([ours, theirs], axis=1), resamples, seed)
    drawn = sign * (score(sums[:, : ours.shape[1]]) - score(sums[:, ours.shape[1] :]))
    if len(ours) == 1:
        return ExampleTest(name, 0.0, 1.0, difference, "one sentence is too few for a test")
    far = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p_value = min(1.0, 2 * (far + 1) / (resamples + 1))
    spread = float(drawn.std())
    if spread <= 1e-12 * max(1.0, abs(difference)):
        z = math.copysign(math.inf, difference) if difference else 0.0
        return ExampleTest(name, z, p_value, difference, "the difference is the same everywhere")
    return ExampleTest(name, difference / spread, p_value, difference)


def _resampled(rows: Floats, resamples: int, seed: int) -> Floats:
    """Sums of the counts of drawn sentences, (R, K): no resample is built, only how often."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; wanted at least 1")
    count = len(rows)
    generator = np.random.default_rng(seed)
    block = max(1, _MOST_DRAWN // count)
    found = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(count, size=(size, count))
        drawn += count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        found.append(times.astype(np.float64) @ rows)
    return np.concatenate(found)


# --- small helpers --------------------------------------------------------------------------------


def _rows(statistics: ArrayLike, metric: str) -> Floats:
    if metric not in _SCORES:
        raise ValueError(f"metric is {metric!r}; give one of {', '.join(_SCORES)}")
    rows = np.asarray(statistics, np.float64)
    if rows.ndim != 2 or not len(rows) or rows.shape[1] != _COUNTS[metric]:
        raise ValueError(
            f"counts of {metric} have shape {rows.shape}; wanted (N, {_COUNTS[metric]}) from "
            "sentence_statistics"
        )
    return rows


def _check(hypotheses: Sequence[str], references: Sequence[str], tokenize: str) -> None:
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise ValueError("one text came where a list of texts was wanted")
    if len(hypotheses) != len(references) or not len(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} references came; wanted as many "
            "of both, at least one"
        )
    if tokenize not in TOKENISERS:
        raise ValueError(f"tokenize is {tokenize!r}; give one of {', '.join(TOKENISERS)}")
