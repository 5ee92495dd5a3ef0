"""Scores, intervals and paired tests of every task: NumPy and SciPy, no TensorFlow.

Names are loaded when first used.
"""

from __future__ import annotations

from keras_seq.lazy import lazy_names

_HOMES = {
    "ExampleTest": "classification",
    "Reliability": "classification",
    "bootstrap_interval": "classification",
    "calibration_error": "classification",
    "classification_scores": "classification",
    "confusion_matrix": "classification",
    "example_test": "classification",
    "f1_by_class": "classification",
    "log_losses": "classification",
    "mcnemar": "classification",
    "multi_label_scores": "classification",
    "reliability": "classification",
    "roc_auc": "classification",
    "Fold": "forecasting",
    "SeasonalScale": "forecasting",
    "conformal_intervals": "forecasting",
    "conformal_quantiles": "forecasting",
    "forecast_scores": "forecasting",
    "per_channel": "forecasting",
    "per_horizon": "forecasting",
    "quantile_coverage": "forecasting",
    "rolling_origin": "forecasting",
    "seasonal_scale": "forecasting",
    "skill": "forecasting",
    "window_losses": "forecasting",
    "block_losses": "language_model",
    "language_model_scores": "language_model",
    "DieboldMariano": "significance",
    "PairedBootstrap": "significance",
    "PairedTest": "significance",
    "diebold_mariano": "significance",
    "paired_bootstrap": "significance",
    "paired_test": "significance",
    "are_spans": "tagging",
    "sentence_errors": "tagging",
    "span_f1": "tagging",
    "spans": "tagging",
    "tagging_scores": "tagging",
    "TOKENISERS": "translation",
    "LengthScore": "translation",
    "bleu_by_length": "translation",
    "corpus_interval": "translation",
    "corpus_score": "translation",
    "corpus_test": "translation",
    "rouge_l": "translation",
    "sentence_scores": "translation",
    "sentence_statistics": "translation",
    "tokenised_note": "translation",
    "translation_scores": "translation",
    "translation_signatures": "translation",
}
__all__, __getattr__, __dir__ = lazy_names(__name__, _HOMES)
