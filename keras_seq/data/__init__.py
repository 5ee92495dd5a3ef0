"""Data: files to tables, tables to windows. Names are loaded when first used."""

from __future__ import annotations

from keras_seq.lazy import lazy_names

_HOMES = {
    "Builtin": "builtin",
    "builtin_info": "builtin",
    "load_builtin": "builtin",
    "make_waves": "builtin",
    "calendar_features": "calendar",
    "calendar_names": "calendar",
    "TaggedTable": "conllu",
    "read_conllu": "conllu",
    "make_dates": "dates",
    "near_duplicates": "duplicates",
    "make_reviews": "grammar",
    "PairBatches": "pair_batches",
    "Pairs": "parallel",
    "filter_pairs": "parallel",
    "find_leaks": "parallel",
    "read_pairs": "parallel",
    "SequenceBatches": "sequences",
    "SequenceTable": "sequences",
    "read_sequences": "sequences",
    "SeriesTable": "series",
    "future_times": "series",
    "read_series": "series",
    "series_from_frame": "series",
    "Split": "splits",
    "default_split": "splits",
    "parse_split": "splits",
    "MOST_ROWS": "stream_rows",
    "StreamRows": "stream_rows",
    "MaskedBatches": "streams",
    "StreamBatches": "streams",
    "TextTable": "text",
    "file_checksum": "text",
    "iter_lines": "text",
    "iter_texts": "text",
    "read_texts": "text",
    "LengthBatches": "tokens",
    "PassBatches": "tokens",
    "TokenBatches": "tokens",
    "TokenStore": "tokens",
    "Windows": "windows",
}
__all__, __getattr__, __dir__ = lazy_names(__name__, _HOMES)
