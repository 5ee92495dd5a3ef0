"""Pictures, as matplotlib Figures that belong to nobody. Names are loaded when first used."""

from __future__ import annotations

from keras_seq.lazy import lazy_names

_HOMES = {
    "BLACK": "curves",
    "GREY": "curves",
    "BLUE": "curves",
    "ORANGE": "curves",
    "GREEN": "curves",
    "RED": "curves",
    "COLOURS": "curves",
    "STYLES": "curves",
    "MARKERS": "curves",
    "forecast_figure": "curves",
    "forecast_grid": "curves",
    "attention_figure": "curves",
    "learning_curves_figure": "curves",
    "quality_latency_figure": "curves",
    "confusion_figure": "labels",
    "mistakes_figure": "labels",
    "reliability_figure": "labels",
    "text_figure": "text",
    "alignment_figure": "alignment",
    "alignment_html": "alignment",
    "alignment_text": "alignment",
    "length_figure": "alignment",
}
__all__, __getattr__, __dir__ = lazy_names(__name__, _HOMES)
