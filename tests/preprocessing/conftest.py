"""Fixtures for the tests of tokenisers."""

from __future__ import annotations

import pytest

from keras_seq.preprocessing.device_tokenizer import KINDS
from tests.preprocessing.samples import trained


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture()
def make():
    return trained
