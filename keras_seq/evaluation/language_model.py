"""Scores of language models, from the log-probability of every true token."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def language_model_scores(
    log_probability: ArrayLike, *, characters: int | None = None, words: int | None = None
) -> dict[str, float]:
    """Turns the log-probabilities of a text's tokens into the scores that the field prints.

    The denominators decide what compares with what. Cross-entropy and perplexity are for each
    token, so they compare under one tokeniser only; a ``</s>`` at the end of each line is a token
    (82,430 in the test part of the Penn Treebank, 245,569 in that of WikiText-2). Bits a character
    are for each character of the text, line breaks counted, and a perplexity a word for each run
    without a blank plus one ``</s>`` a line; both compare across tokenisers that lose nothing.

    Args:
        log_probability: (N,) natural logarithms, one for each true token.
        characters: Characters of the text, line breaks counted; None leaves the score out.
        words: Words of the text and one for each line; None leaves the score out.

    Returns:
        ``cross_entropy`` in nats a token, ``perplexity``, ``bits_per_character`` and
        ``word_perplexity``.

    Raises:
        ValueError: If there is no token.

    Example:
        >>> scores = language_model_scores(np.log([0.5, 0.125]), characters=8, words=1)
        >>> {name: round(value, 4) for name, value in scores.items()}
        {'cross_entropy': 1.3863, 'perplexity': 4.0, 'bits_per_character': 0.5,
         'word_perplexity': 16.0}

    Reference:
        Mikolov et al. 2011, Empirical Evaluation and Combination of Advanced Language Modeling
        Techniques (perplexity); Graves 2013, Generating Sequences With Recurrent Neural Networks
        (bits a character).
    """
    logs = np.asarray(log_probability, np.float64)
    if not logs.size:
        raise ValueError("there is no token to score")
    total = -float(logs.sum())
    mean = total / logs.size
    found = {"cross_entropy": mean, "perplexity": _exp(mean)}
    if characters:
        found["bits_per_character"] = total / math.log(2) / characters
    if words:
        found["word_perplexity"] = _exp(total / words)
    return found


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf


def block_losses(log_probability: ArrayLike, *, most: int = 200) -> NDArray[np.float64]:
    """Averages the loss over blocks of neighbouring tokens, for paired tests.

    Neighbouring tokens are alike, so a test over single tokens would be too sure. The blocks are
    of equal length, up to one token.

    Args:
        log_probability: (N,) natural logarithms.
        most: The most blocks; blocks have at least 20 tokens where there are so many.

    Returns:
        (blocks,) nats a token.

    Example:
        >>> block_losses([-1.0, -3.0] * 40).tolist()
        [2.0, 2.0, 2.0, 2.0]
    """
    logs = np.asarray(log_probability, np.float64)
    count = int(np.clip(len(logs) // 20, 1, most))
    ends = np.linspace(0, len(logs), count + 1).astype(int)
    running = np.concatenate([[0.0], np.cumsum(logs)])
    return -(running[ends[1:]] - running[ends[:-1]]) / np.diff(ends)
