"""Tables in markdown, as TensorBoard's page of texts shows them."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Writes texts as a table, each as it is: what means something in markdown is escaped.

    Args:
        heads: Headings of the columns.
        rows: Texts, as many in a row as there are headings; line ends become spaces.

    Example:
        >>> print(markdown_table(["source", "translation"], [["a | b", "<unk>"]]))
        | source | translation |
        |---|---|
        | a &#124; b | &#60;unk&#62; |
    """
    lines = [[_cell(text) for text in row] for row in (heads, *rows)]
    lines.insert(1, [])
    return "\n".join(
        f"| {' | '.join(line)} |" if line else "|" + "---|" * len(heads) for line in lines
    )


def _cell(text: str) -> str:
    # As numbers of HTML: whether a backslash escapes depends on the character and the reader.
    return "".join(f"&#{ord(c)};" if c in "\\`*_[]<>|&~" else c for c in " ".join(text.split()))
