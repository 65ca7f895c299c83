"""From a finished search to each arm's settings: the table, the choice, and who gets to see it.

The table lies in outputs/<study>-tune/. Where the choice is written to the study file, a copy goes
to tuned/<study>.csv beside it, and every start of the study copies that to outputs/<study>/ for its
report.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lib import store
from lib.params import BadParameter
from lib.store import ROOT
from lib.study import amend, paths
from lib.study.plan import shown
from lib.study.tune import SEARCHED

if TYPE_CHECKING:
    import pandas as pd

    from lib.study.grid import Study

FILE = "tuning.csv"
DIGITS = 6  # of a mean average precision; what is equal to so many is a tie
VALUES = [name.removeprefix("train.") for name in SEARCHED]
ABOUT = ("seeds", "steps", "dev", "folds", "split", "axis")  # what people need not see in every row

Row = dict[str, Any]


def table(search: Study) -> list[Row]:
    """A finished search: a row an arm and setting, in the order of the file. Means over seeds of
    mAP on the dev share by setting, and `map`, their mean, rounded to DIGITS, and

    behind   by how much `map` is below the arm's best
    best_in  in how many seeds it is the arm's best
    chosen   "yes" for the arm's best, of equal ones the first; else ""
    edge     at which ends of what was searched the chosen one lies
    """
    groups: dict[str, dict[tuple, list[str]]] = {}
    for key, run in search.runs.items():
        axis, _, arm = key.split(",")[0].partition("=")
        setting = tuple(getattr(run.train, name) for name in VALUES)
        groups.setdefault(arm, {}).setdefault(setting, []).append(key)
    ends = [sorted(set(values)) for values in zip(*next(iter(groups.values())), strict=True)]
    return [row for arm, keys in groups.items() for row in _of_arm(search, axis, arm, keys, ends)]


def _of_arm(
    search: Study, axis: str, arm: str, keys: dict[tuple, list[str]], ends: list[list[float]]
) -> list[Row]:
    """The rows of an arm. keys: setting -> runs, a seed each; ends: values of each parameter."""
    scores = {setting: [_dev_scores(search, key) for key in own] for setting, own in keys.items()}
    by_seed = zip(*scores.values(), strict=True)
    best_of_seed = [max(round(s["map"], DIGITS) for s in seed) for seed in by_seed]
    rows = []
    for setting, found in scores.items():
        run = search.runs[keys[setting][0]].train
        means = {n: round(fmean(s[n] for s in found), DIGITS) for n in found[0] if n != "step"}
        wins = [
            round(s["map"], DIGITS) == best for s, best in zip(found, best_of_seed, strict=True)
        ]
        own = {"arm": arm, **dict(zip(VALUES, setting, strict=True)), **means}
        rows.append(
            own | {"behind": 0.0, "best_in": sum(wins), "seeds": len(found), "steps": run.steps}
        )
    best = max(rows, key=lambda row: row["map"])  # the first of equal ones
    corpus = search.corpora[search.runs[next(iter(keys.values()))[0]].train.corpus]
    for row in rows:
        row["behind"] = round(best["map"] - row["map"], DIGITS)
        row["chosen"] = "yes" if row is best else ""
        row["edge"] = _edge(row, ends) if row is best else ""
        row |= {"dev": corpus.dev, "folds": corpus.folds, "split": corpus.split, "axis": axis}
    return rows


def _dev_scores(search: Study, key: str) -> dict[str, float]:
    """What the last validation of a run found: step, mAP by setting, `map`."""
    return store.read_json(paths.run_dir(search.name, key) / "validation.json")[-1]


def _edge(row: Row, ends: list[list[float]]) -> str:
    """Which values are the lowest or highest of those searched; "" where all lie inside."""
    found = []
    for name, values in zip(VALUES, ends, strict=True):
        if len(values) > 1 and row[name] in (values[0], values[-1]):
            end = "lowest" if row[name] == values[0] else "highest"
            found.append(f"{end} {name}")
    return ", ".join(found)


# --- what the command says and writes ----------------------------------------------------------


def conclude(search: Study, path: str, write: bool) -> None:
    """Write the table of a finished search, print it, and print the lines of the study file that
    it changes. write: also change them, and put the table beside the file. Raises BadParameter."""
    rows = table(search)
    text = _csv(rows)
    _write(paths.study_dir(search.name) / FILE, text)
    print("\n".join(_lines(rows)))
    old = _read(Path(path))
    names = [n for n in VALUES if f",{n}=" in next(iter(search.runs))]
    new = amend.amended(old, rows[0]["axis"], *_choice(rows, names))
    changed = [line for line in new.splitlines() if line not in old.splitlines()]
    kept = Path(path).parent / "tuned" / f"{Path(path).stem}.csv"
    if write:
        _write(kept, text)
        _write(Path(path).resolve(), new)
        print(f"\nwritten to {path} (table: {kept}):")
    elif changed:
        print(f"\nlines for {path}, which WRITE=1 writes there (and the table to {kept}):")
    print("\n".join(changed) or f"{path} has these settings")


def _choice(
    rows: list[Row], names: list[str]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """The values of the searched names that are chosen for each arm, and what is said of each."""
    chosen, notes = {}, {}
    for row in rows:
        if row["chosen"]:
            chosen[row["arm"]] = {f"train.{name}": row[name] for name in names}
            notes[row["arm"]] = f"dev mAP {row['map']:.3f}{_next(row, rows)}"
    return chosen, notes


def _next(best: Row, rows: list[Row]) -> str:
    """How far the next setting of the arm is behind, in words; "" without one."""
    others = [r["behind"] for r in rows if r["arm"] == best["arm"] and r is not best]
    return f", next -{min(others):.3f}" if others else ""


def _lines(rows: list[Row]) -> list[str]:
    """The table for a terminal: a star before what is chosen, and a word on edges."""
    names = [name for name in rows[0] if name not in (*ABOUT, "chosen", "edge")]
    cells = [["", *names]] + [
        ["*" * bool(row["chosen"]), *(_shown(n, row[n]) for n in names), row["edge"]]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names) + 1)]
    first, about = rows[0], f"prepare.dev {rows[0]['dev']:g}"
    head = (
        f"mAP on what is set aside ({about}), mean over {first['seeds']} seed"
        f"{'s' * (first['seeds'] > 1)}; `map`, the mean of the settings, decides"
    )
    return [head] + [
        "  ".join([x.ljust(w) for x, w in zip(line, widths, strict=False)] + line[len(widths) :])
        .rstrip() for line in cells
    ]  # fmt: skip


def _shown(name: str, value: Any) -> str:
    return (
        str(value) if name in ("arm", "best_in") else f"{value:{'g' if name in VALUES else '.3f'}}"
    )


def _csv(rows: list[Row]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _read(path: Path) -> str:
    """A text with its ends of lines as they are."""
    return path.read_bytes().decode("utf-8")


def _write(path: Path, text: str) -> None:
    with store.atomic_file(path) as file:
        file.write_bytes(text.encode("utf-8"))


# --- what the study gets to see ----------------------------------------------------------------


def carry(study: Study) -> None:
    """Copy the table beside the study file to outputs/<study>/, where its report looks for it. The
    analysis of another table runs again. Raises BadParameter where the search set aside other
    questions than the study does, which then tests on some that have chosen."""
    source = (ROOT / study.file).parent / "tuned" / f"{study.name}.csv"
    copy = paths.study_dir(study.name) / FILE
    try:
        text = _read(source) if source.is_file() else ""
    except UnicodeDecodeError:
        raise BadParameter(f"{shown(source)}: is not UTF-8 (expected a table of `tune`)") from None
    for row in csv.DictReader(io.StringIO(text)):
        split = row.get("split", "group")  # of tables from before it was said
        try:
            asked = {(float(row["dev"]), int(row["folds"]), split)}
        except (KeyError, TypeError, ValueError):
            raise BadParameter(
                f"{shown(source)}: is no table of a search (expected one that `tune` wrote)"
            ) from None
        if asked != {(corpus.dev, corpus.folds, corpus.split) for corpus in study.corpora.values()}:
            raise BadParameter(
                f"{shown(source)}: was searched with prepare.dev {row['dev']}, folds "
                f"{row['folds']}, split {split}, and the study has others (expected the same: else "
                "it is tested on questions that have chosen)"
            )
    if text != (_read(copy) if copy.exists() else ""):
        (paths.report_dir(study.name) / "analyse.ok").unlink(missing_ok=True)
        _write(copy, text) if text else copy.unlink()


def tuning(study: str) -> pd.DataFrame:
    """The `table` of the search that chose the settings of a study's arms; empty for none."""
    import pandas as pd

    file = paths.study_dir(study) / FILE
    if not file.exists():
        return pd.DataFrame()
    return pd.read_csv(file, dtype={"arm": str}, keep_default_na=False)
