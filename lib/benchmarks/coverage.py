"""Which questions a setting can ask, and which languages fill the top of its lists."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib.benchmark import Benchmark
from lib.metrics import ALL_SETTINGS, Ranks


def left_out(benchmark: Benchmark) -> pd.DataFrame:
    """How many questions each setting leaves out for want of a relevant candidate.

    Columns: setting, question_language, candidate_language, questions (all of that language),
    left_out. Languages without candidates make no setting and are not listed."""
    size, languages = len(benchmark.languages), np.array([*benchmark.languages, "*"])
    answerable = np.zeros((len(benchmark.questions), size + 1), bool)
    answerable[benchmark.question, benchmark.candidate_language[benchmark.candidate]] = True
    answerable[benchmark.question, size] = True
    totals = np.bincount(benchmark.question_language, minlength=size)
    answered = np.zeros((size, size + 1), np.int64)
    np.add.at(answered, benchmark.question_language, answerable)
    present = np.isin(np.arange(size + 1), [*benchmark.candidate_language, size])
    row, column = np.nonzero((totals > 0)[:, None] & present)
    local = np.where(column == size, "multi", np.where(row == column, "mono", "cross"))
    table = pd.DataFrame(
        {
            "setting": local,
            "question_language": languages[row],
            "candidate_language": languages[column],
            "questions": totals[row],
            "left_out": totals[row] - answered[row, column],
        }
    )
    target = table[table["setting"] != "multi"].assign(setting="one_target")
    table = pd.concat([table, target])
    table["setting"] = pd.Categorical(table["setting"], ALL_SETTINGS)
    return table.sort_values("setting", kind="stable", ignore_index=True)


def language_share(ranks: Ranks, benchmark: Benchmark) -> pd.DataFrame:
    """Share of each language in the questions' top 10 against its share of the pool.

    Columns: question_language ("*" = macro mean over them, first), candidate_language, share, pool
    (share of the candidates), lift = share / pool (1 = as in the pool). Shares of one question
    language sum to 1."""
    names, size = np.array(benchmark.languages), len(benchmark.languages)
    pool = np.bincount(benchmark.candidate_language, minlength=size) / len(benchmark.candidates)
    codes = np.unique(benchmark.question_language)
    means = np.stack(
        [
            ranks.top10[benchmark.question_language == language].mean(0, np.float64)
            for language in codes
        ]
    )
    share = np.vstack([means.mean(0), means])[:, pool > 0]
    rows, columns = share.shape
    table = pd.DataFrame(
        {
            "question_language": np.repeat(["*", *names[codes]], columns),
            "candidate_language": np.tile(names[pool > 0], rows),
            "share": share.ravel(),
            "pool": np.tile(pool[pool > 0], rows),
        }
    )
    return table.assign(lift=table["share"] / table["pool"])
