"""Tables as a notebook shows them: with a caption, and a link to the file they are in."""

from __future__ import annotations

import html

import pandas as pd
from IPython.display import HTML, Markdown

# What is shown where there is nothing to show; reports leave such a section out, with its heading.
NOTHING = Markdown("None in this study.")


def show(table: pd.DataFrame, caption: str, file: str = "") -> HTML | Markdown:
    """A table with its caption; NOTHING of an empty one.

    file: its name below the report's tables/, without the ending, where it has one. Rows are named
    by the index, or where rows are only numbered by the first column."""
    if not len(table):
        return NOTHING
    numbered = isinstance(table.index, pd.RangeIndex)
    text = table.to_html(index=not numbered, border=0, na_rep="\N{EM DASH}")
    title = f"<caption><span>{html.escape(caption)}</span></caption>"
    text = text.replace("<thead>", f"{title}<thead>", 1).replace(' style="text-align: right;"', "")
    link = f'<p class="files"><a href="tables/{file}.csv">{file}.csv</a></p>' if file else ""
    return HTML(text + link)


def together(parts: dict[str, pd.DataFrame], caption: str, file: str = "") -> HTML | Markdown:
    """Tables below each other, each with the caption and its name; without the empty ones."""
    shown = {name: table for name, table in parts.items() if len(table)}
    if not shown:
        return NOTHING
    texts = [
        show(table, f"{name}: {caption}", file if name == list(shown)[-1] else "").data
        for name, table in shown.items()
    ]
    return HTML("".join(texts))
