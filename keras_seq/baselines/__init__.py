"""What every network must beat, by task. Names are loaded when first used."""

from __future__ import annotations

from keras_seq.lazy import lazy_names

_HOMES = {
    "FEATURE_BASELINES": "classification",
    "TEXT_BASELINES": "classification",
    "Classifier": "classification",
    "Logistic": "classification",
    "Majority": "classification",
    "NaiveBayes": "classification",
    "NaiveBayesLogistic": "classification",
    "NearestNeighbours": "classification",
    "PositionLogistic": "classification",
    "ngram_features": "classification",
    "sequence_features": "classification",
    "BASELINES": "forecasting",
    "Baseline": "forecasting",
    "Drift": "forecasting",
    "Ets": "forecasting",
    "Naive": "forecasting",
    "Ridge": "forecasting",
    "SeasonalNaive": "forecasting",
    "Theta": "forecasting",
    "holt_winters_forecast": "forecasting",
    "theta_forecast": "forecasting",
    "NGram": "language_model",
    "TAGGERS": "tagging",
    "FeatureTagger": "tagging",
    "FrequentTag": "tagging",
    "MajorityTag": "tagging",
    "TRANSLATORS": "translation",
    "CopySource": "translation",
    "TranslationMemory": "translation",
    "WordTable": "translation",
}
__all__, __getattr__, __dir__ = lazy_names(__name__, _HOMES)
