"""Heads: what goes into an architecture, and what its output becomes.

A head is a small frozen description; `keras_seq.build` calls its `connect` with the architecture
and the named inputs. An architecture knows no task, and a head knows no architecture.
"""

from __future__ import annotations

from keras_seq.heads.forecast import Forecast
from keras_seq.heads.label import Label
from keras_seq.heads.language_model import MaskedToken, NextToken
from keras_seq.heads.own_tokens import scheduled_sampling, unscheduled
from keras_seq.heads.tagging import Characters, TokenLabels
from keras_seq.heads.tokens import Tokens
from keras_seq.heads.translation import Translation

__all__ = [
    "Characters",
    "Forecast",
    "Label",
    "MaskedToken",
    "NextToken",
    "TokenLabels",
    "Tokens",
    "Translation",
    "scheduled_sampling",
    "unscheduled",
]
