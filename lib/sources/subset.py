"""A share of the training groups: what less data does, everything else as it was.

A group stays or goes by a hash of its name alone, so smaller shares are parts of larger ones, and
all languages of a group stay together. What is held out and the pool stay as they are.
"""

from __future__ import annotations

from lib.corpus import ParallelCorpus
from lib.sources.assemble import corpus_of_rows
from lib.sources.text import share


def nested(corpus: ParallelCorpus, part: float) -> ParallelCorpus:
    """The corpus with about that share of its training groups. Explicit negatives whose passage
    went are taken out. Raises ValueError where no group is left."""
    rows = [row for row in corpus.rows if share(f"group {row['group']}") < part]
    if not rows:
        raise ValueError(f"groups: {part:g} leaves no group to train on (expected more)")
    known = {row["passage_id"] for row in rows}
    for row in rows if "negatives" in rows[0] else ():
        row["negatives"] = [name for name in row["negatives"] if name in known]
    return corpus_of_rows(rows, corpus.meta, list(corpus.test), list(corpus.pool))
