"""How the arms of a study were tuned, for its report: what was searched, what was chosen, what is
used. The table is that of `make tune` (lib.study.choose.table)."""

from __future__ import annotations

import pandas as pd
from IPython.display import Markdown

from lib.analysis.results import ScoredRun

VALUES = ("learning_rate", "temperature")
MARGIN = 0.01  # as of verdicts: what is behind by less is a near-tie


def sentence(table: pd.DataFrame, runs: list[ScoredRun]) -> Markdown:
    """How the arms were tuned, or that they were not."""
    if not len(table):
        settings = {_setting(run) for run in runs if run.train.steps}
        same = "every arm has the same settings" if len(settings) == 1 else "settings are as given"
        return Markdown(f"Not tuned: {same}.")
    best = table[table["chosen"] == "yes"]
    searched = ", ".join(
        f"{name.replace('_', ' ')} {' / '.join(f'{x:g}' for x in sorted(set(table[name])))}"
        for name in VALUES
    )
    seeds, steps = int(table["seeds"].max()), " / ".join(map(str, dict.fromkeys(table["steps"])))
    near, edge = int((_next(table) < MARGIN).sum()), int((best["edge"] != "").sum())
    return Markdown(
        f"Each of {len(best)} arms was trained at every {searched}, for {steps} steps, on "
        f"{seeds} seed{'s' * (seeds > 1)} used for nothing else. The mean of mAP over settings on "
        f"the dev share ({table['dev'].iloc[0]:g} of what is held out, which no evaluation asks) "
        f"decided. In {near} arms the next setting is less than {MARGIN:g} behind; in {edge} the "
        "chosen one lies on the edge of what was searched, so a better one may lie beyond."
    )


def shown(table: pd.DataFrame, runs: list[ScoredRun]) -> pd.DataFrame:
    """The chosen setting of each arm for people to read, and what the runs use where they differ;
    empty without a search."""
    if not len(table):
        return table
    best = table[table["chosen"] == "yes"].set_index("arm")
    scores = [name for name in ("mono", "cross", "multi", "map") if name in best]
    found = best[[*VALUES]].map("{:g}".format).join(best[scores].map("{:.3f}".format))
    found["next best"] = _next(table).map("-{:.3f}".format)
    found["best in"] = [f"{row.best_in} of {row.seeds} seeds" for row in best.itertuples()]
    found["edge"] = best["edge"].str.replace("_", " ")
    found["used"] = [_used(row, runs) for row in best.reset_index().itertuples()]
    return found.rename(columns=lambda name: name.replace("_", " ")).rename_axis(None)


def _next(table: pd.DataFrame) -> pd.Series:
    """Arm -> how far its second best setting is behind, in the order of the table."""
    others = table[table["chosen"] != "yes"]
    return others.groupby("arm", sort=False)["behind"].min()


def _setting(run: ScoredRun) -> tuple[float, ...]:
    return tuple(getattr(run.train, name) for name in VALUES)


def _used(row, runs: list[ScoredRun]) -> str:
    """What an arm's runs are trained with, seen from what was chosen for it."""
    own = [run for run in runs if f"{row.axis}={row.arm}" in run.key.split(",")]
    found = {_setting(run) for run in own}
    if found <= {tuple(getattr(row, name) for name in VALUES)}:
        return "as chosen" if found else "no run"
    return "; ".join(", ".join(f"{x:g}" for x in setting) for setting in sorted(found))
