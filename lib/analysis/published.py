"""Figures that others published on the same benchmarks: other encoders, other training data.

They stand beside measured rows to be read, never compared by a test: no seeds, no intervals and no
per-question scores of them are public. mAP; `multi` is the pool of all languages. Sources: Tables 1
and 2 of arXiv 2408.10536 (XLM-R and LaBSE fine-tuned on translations that were not released), and
the multilingual pool of arXiv 2004.05484 (mBERT fine-tuned on SQuAD and translations of it).
"""

from __future__ import annotations

import pandas as pd

from lib.params import BenchmarkSpec

# (format, split) -> questions of all languages together
QUESTIONS = {("lareqa", "xquad-r"): 13_090, ("lareqa", "mlqa-r"): 4_199}
# (format, split) -> (who, arm) -> (mono, cross, multi); None where the source has no figure
ROWS = {
    ("lareqa", "xquad-r"): {
        ("XLM-R", "mono"): (0.792, 0.674, 0.547),
        ("XLM-R", "cross"): (0.755, 0.700, 0.593),
        ("XLM-R", "hybrid(0.5)"): (0.798, 0.705, 0.593),
        ("LaBSE", "mono"): (0.808, 0.752, 0.652),
        ("LaBSE", "cross"): (0.801, 0.762, 0.679),
        ("LaBSE", "hybrid(0.5)"): (0.817, 0.767, 0.682),
        ("mBERT", "en-en"): (None, None, 0.29),
        ("mBERT", "x-x"): (None, None, 0.23),
        ("mBERT", "mono"): (None, None, 0.52),
        ("mBERT", "cross"): (None, None, 0.66),
    },
    ("lareqa", "mlqa-r"): {
        ("XLM-R", "mono"): (0.648, 0.584, 0.473),
        ("XLM-R", "cross"): (0.626, 0.620, 0.508),
        ("XLM-R", "hybrid(0.5)"): (0.648, 0.623, 0.512),
        ("LaBSE", "mono"): (0.681, 0.656, 0.550),
        ("LaBSE", "cross"): (0.671, 0.677, 0.576),
        ("LaBSE", "hybrid(0.5)"): (0.686, 0.681, 0.579),
        ("mBERT", "en-en"): (None, None, 0.36),
        ("mBERT", "x-x"): (None, None, 0.26),
        ("mBERT", "mono"): (None, None, 0.49),
        ("mBERT", "cross"): (None, None, 0.49),
    },
}
SOURCE = {"XLM-R": "2408.10536", "LaBSE": "2408.10536", "mBERT": "2004.05484"}


def rows(spec: BenchmarkSpec, questions: int) -> pd.DataFrame:
    """Published mAP on the benchmark of `spec`: index `published: XLM-R, mono (arXiv ...)`, columns
    mono, cross, multi as text. Empty unless all of the set's questions are asked. The paper does
    not say which form of candidate it searched, so its rows stand beside either."""
    name = (spec.format, spec.split or "xquad-r")
    known = QUESTIONS.get(name) == questions
    cells = {
        f"published: {who}, {arm} (arXiv {SOURCE[who]})": [
            "" if value is None else f"{value:.2f}" if who == "mBERT" else f"{value:.3f}"
            for value in values
        ]
        for (who, arm), values in (ROWS[name] if known else {}).items()
    }
    return pd.DataFrame.from_dict(cells, orient="index", columns=["mono", "cross", "multi"])
