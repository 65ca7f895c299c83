"""All studies beside each other: what each found, claim by claim, in words and small tables.

Every figure is out of the tables that a report saves, read back; nothing here is typed. What a
study did not save is left out, so that a page can be made of any set of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from lib.analysis import answers, claims, predictions, stats, tables, trends, words
from lib.metrics import REFERENCES, SETTINGS
from lib.params import Analyse, Prepare, Train

LAW = ("points", "predictions", "outcomes", "growth")  # what lib.analysis.predictions.answer reads
PRIMARY = {claim.words: claim.words.partition(":")[0] for claim in claims.PRIMARY}
MULTI = "Multi gain"  # beside the primary contrasts in the figure; of claims.CONTRASTS
# The contrasts of the figure, said as what hybrid(0.5) is compared with.
IN_SHORT = {
    "Mono cost": "mono, within a language",
    "Cross gain": "mono, across languages",
    MULTI: "mono, one pool of all languages",
    "Batch effect": "mix(0.5), mean of the three",
}
VERDICTS = ("supported", "contradicted", "equivalent", "inconclusive")
UNTRAINED = {*REFERENCES.values(), "untrained"}


@dataclass(frozen=True)
class Trained:
    """What a study's runs were made of, of its parameters and the manifests of its corpora.

    corpora   parameters of each; rows: training rows by language of each that is there
    runs      parameters of every run of the grid; finished: how many of them are there"""

    corpora: list[Prepare] = field(default_factory=list)
    rows: list[dict[str, int]] = field(default_factory=list)
    runs: list[Train] = field(default_factory=list)
    finished: int = 0
    benchmark: str = ""


@dataclass(frozen=True)
class Kept:
    """What is kept of a study: its tables by name, as they were saved, and what it was made of."""

    name: str
    tables: Mapping[str, pd.DataFrame]
    analyse: Analyse = field(default_factory=Analyse)
    made: Trained = field(default_factory=Trained)

    def table(self, name: str) -> pd.DataFrame:
        """A table; empty where the study saved none of that name."""
        return self.tables.get(name, pd.DataFrame())

    @property
    def reported(self) -> bool:
        """Whether it has a result: the primary contrasts, or the laws."""
        return "primary" in self.tables or "laws" in self.tables

    @property
    def borrows(self) -> bool:
        """Whether its contrasts are those of another study's runs, beside which it puts maps of the
        same encoders, or further arms: what counts studies would count these twice."""
        return not {"posthoc", "others"}.isdisjoint(self.tables)


def distinct(studies: Iterable[Kept]) -> list[Kept]:
    """Studies whose primary contrasts are of runs of their own: none that borrows, and of several
    with the same contrasts the first, since the others took its runs and put arms beside them."""
    every = [*studies]
    return [kept for kept in every if not kept.borrows and _first(kept, every) is kept]


def _first(kept: Kept, studies: Iterable[Kept]) -> Kept:
    """The first of some studies with the same contrasts that does not borrow them; or the study."""
    own = _differences(kept)
    same = (one for one in studies if own and not one.borrows and _differences(one) == own)
    return next(same, kept)


def _differences(kept: Kept) -> list[float]:
    primary = kept.table("primary")
    return primary["difference"].dropna().tolist() if len(primary) else []


# --- the answers -------------------------------------------------------------------------------


def answer(kept: Kept, studies: Iterable[Kept] = ()) -> str:
    """What a study found, in a sentence or two with intervals, `**` around what counts: of one that
    puts arms beside the runs of one of `studies`, what these arms are. kept: one that has a
    result."""
    if "laws" in kept.tables:
        return predictions.answer(*(kept.table(n) for n in LAW))
    names = ("choices", "posthoc", "temperatures", "others", "trend", "slopes")
    own = (kept.table(name) for name in names)
    if said := answers.first_sentence(*own, words.axis(kept.analyse)):
        return said + _levels(kept)
    if (first := _first(kept, studies)) is not kept:
        return _added(kept, first)
    primary = kept.table("primary")
    primary = primary.assign(why=primary["why"].astype(object).fillna(""))
    return words.in_short(primary) + _behind(kept)


def _added(kept: Kept, first: Kept) -> str:
    """Whose contrasts a study has, and what mAP its further arms have in one pool beyond mono."""
    said = f"The contrasts of {first.name}, whose runs it took."
    own = kept.table("rivals")
    if own.empty:
        return said
    added = ~own["arm"].isin(first.table("rivals").get("arm", ()))
    rows = own[added & (own["rival"] == "mono") & (own["setting"] == "multi")]
    return f"{said} Over mono, {answers.in_pool(rows, 'arm')}." if len(rows) else said


def _levels(kept: Kept) -> str:
    """A sentence, to follow others: how good the best arm is where an axis begins and ends, and
    whether BM25 is ahead there, since contrasts shrink where nothing is learned; "" without one."""
    series = kept.table("series")
    if series.empty:
        return ""
    best = series[series["setting"] == "mono"].groupby("x")["mAP"].max()
    first, last = best.index.min(), best.index.max()
    said = (
        f" The best arm's mAP within a language is {best[first]:.3f} at "
        f"{words.axis(kept.analyse)} {first:g} and {best[last]:.3f} at {last:g}."
    )
    behind = _behind(kept).strip()
    return said + f" At {last:g} {behind}" * bool(behind)


def together(studies: Iterable[Kept]) -> str:
    """What several studies say of the primary contrasts, in a sentence: how often each verdict, and
    from which difference to which; "" for fewer than two. Those of too few seeds stay out."""
    every = [k.table("primary").dropna(subset="difference") for k in distinct(studies) if _flat(k)]
    tested = [own[own["verdict"] != stats.NO_VERDICT] for own in every]
    if sum(len(own) > 0 for own in tested) < 2:
        return ""
    parts = [
        f"{PRIMARY[claim].lower()} {own['difference'].min():+.3f} to "
        f"{own['difference'].max():+.3f} "
        f"({_in_all(own['verdict'].tolist())} of {len(own)} studies)"
        for claim, own in pd.concat(tested).groupby("claim", sort=False)
    ]
    return f"In mAP: {'; '.join(parts)}."


def side_by_side(studies: Iterable[Kept]) -> pd.DataFrame:
    """What the figure of that name draws: a row a contrast (the primary ones, and MULTI) and study
    that is not along an axis, those of a pretrained encoder first: contrast, study, start, arm,
    difference, low, high, verdict (as of lib.analysis.contrasts.rivals)."""
    parts = []
    for kept in sorted(
        filter(_flat, distinct(studies)), key=lambda kept: not kept.made.runs[0].model
    ):
        primary = kept.table("primary").dropna(subset="difference")
        told = primary["verdict"].isin(["supported", "contradicted"])
        higher = (primary["difference"] > 0).map({True: "higher", False: "lower"})
        own = primary.assign(
            contrast=primary["claim"].map(PRIMARY), verdict=higher.where(told, "undecided")
        )
        start = _start(kept.made.runs[0]).partition(",")[0]
        parts.append(pd.concat([own, _multi(kept)]).assign(study=kept.name, start=start))
    columns = ["contrast", "study", "start", "arm", "difference", "low", "high", "verdict"]
    table = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame()
    return table.sort_values("contrast", key=_in_turn, kind="stable") if parts else table


def in_short(studies: Iterable[Kept], heads: Mapping[str, str]) -> pd.DataFrame:
    """For people to read: a row a contrast of `side_by_side`, a column each of the studies that
    `heads` names, under what it calls them; a star where a contrast is significant."""
    table = side_by_side(kept for kept in studies if kept.name in heads)
    if table.empty:
        return table
    told = table["verdict"].isin(["higher", "lower"]).map({True: "*", False: ""})
    shown = [tables.gap_shown(row) for row in table.itertuples()]
    table = table.assign(contrast=table["contrast"].map(IN_SHORT), shown=shown + told)
    wide = table.pivot(index="contrast", columns="study", values="shown")
    wide = wide.reindex(index=IN_SHORT.values(), columns=[n for n in heads if n in wide])
    wide = wide.rename(columns=heads).fillna("\N{EM DASH}")
    return wide.rename_axis("hybrid(0.5) less").reset_index()


def _multi(kept: Kept) -> pd.DataFrame:
    """The row of MULTI among the comparisons with fixed rivals."""
    rivals, claim = kept.table("rivals"), claims.CONTRASTS[MULTI.lower()]
    if rivals.empty:
        return rivals
    ((setting, versus),) = claim.pairs
    own = (rivals["arm"] == claim.arm) & (rivals["versus"] == versus)
    return rivals[own & (rivals["setting"] == setting)].assign(contrast=MULTI)


def _in_turn(contrasts: pd.Series) -> pd.Series:
    """Places of the contrasts of the figure."""
    return contrasts.map({name: place for place, name in enumerate([*PRIMARY.values(), MULTI])})


def along(studies: Iterable[Kept]) -> pd.DataFrame:
    """The primary contrasts of studies along an axis that have all three: study, axis, contrast, x,
    value, low, high."""
    parts = []
    for kept in studies:
        table = kept.table("trend")
        own = table[table["contrast"].isin(trends.ANSWERS)] if len(table) else table
        if len(own) and own["contrast"].nunique() == len(trends.ANSWERS):
            parts.append(own.assign(study=kept.name, axis=words.axis_label(kept.analyse)))
    columns = ["study", "axis", "contrast", "x", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame()


def _flat(kept: Kept) -> bool:
    """Whether a study has contrasts, and not along an axis."""
    return "primary" in kept.tables and not kept.analyse.axis


def unreported(kept: Kept) -> str:
    """How many runs are kept of a study without a report."""
    count, of = kept.made.finished, len(kept.made.runs)
    if count < of:
        return f"under way, {count:,} of {words.counted(of, 'run')}"
    return words.counted(count, "run")


def contrasts(studies: Iterable[Kept]) -> pd.DataFrame:
    """For people to read: a row a study and primary contrast that it has, with verdict, seeds,
    clusters and what could have been detected."""
    rows = []
    for kept in (one for one in studies if len(one.table("primary"))):
        for row in kept.table("primary").dropna(subset="difference").itertuples():
            rows.append(
                {
                    "study": kept.name,
                    "contrast": PRIMARY.get(row.claim, row.claim),
                    "difference in mAP [95 %]": tables.gap_shown(row),
                    "verdict": row.verdict,
                    "detectable": tables.number_shown(row.detectable),
                    "p (Holm)": tables.p_shown(row.p_holm),
                    "seeds": _whole(row.seeds),
                    "clusters": _whole(row.clusters),
                }
            )
    return pd.DataFrame(rows)


def _whole(value: float) -> str:
    return "\N{EM DASH}" if pd.isna(value) else f"{value:,.0f}"


def advice(studies: Iterable[Kept]) -> pd.DataFrame:
    """For people to read: a row a need and study, with the best arm and what else is as good."""
    parts = [k.table("advice").assign(study=k.name) for k in studies if len(k.table("advice"))]
    if not parts:
        return pd.DataFrame()
    whole = pd.concat(parts, ignore_index=True).sort_values("setting", key=_places, kind="stable")
    return pd.DataFrame(
        {
            "need": whole["need"],
            "study": whole["study"],
            "best arm": whole["arm"],
            "mAP [95 %]": [f"{r.mAP:.3f} {stats.shown(r.low, r.high)}" for r in whole.itertuples()],
            "advice": whole["advice"],
        }
    )


def _places(settings: pd.Series) -> pd.Series:
    return settings.map({setting: place for place, setting in enumerate(SETTINGS)})


def ranker(studies: Iterable[Kept]) -> pd.DataFrame:
    """For people to read: study, and mAP in mono, cross and multi of the best arm and of BM25 over
    character n-grams, which nobody trained."""
    rows = []
    for kept in studies:
        row = {}
        for setting, own, best, arm in _beside(kept.table("quality")):
            row[f"{setting}: BM25"] = f"{own:.3f}"
            row[f"{setting}: best arm"] = f"{best:.3f} ({arm})"
        rows += [{"study": kept.name} | row] if row else []
    return pd.DataFrame(rows).fillna("\N{EM DASH}")


def _beside(quality: pd.DataFrame) -> list[tuple[str, float, float, str]]:
    """Setting, mAP of BM25 over character n-grams, that of the best arm, and which that is."""
    if quality.empty:
        return []
    rows = quality[quality["metric"] == "ap"]
    ap = rows.pivot(index="arm", columns="setting", values="estimate")
    trained, bm25 = ap[~ap.index.isin(UNTRAINED)], REFERENCES["bm25_chars"]
    return [
        (setting, ap.loc[bm25, setting], trained[setting].max(), trained[setting].idxmax())
        for setting in SETTINGS
        if setting in ap and bm25 in ap.index
    ]


def _behind(kept: Kept) -> str:
    """A sentence, to follow others: where nothing trained here reaches BM25; "" where it does."""
    ahead = [setting for setting, own, best, _ in _beside(kept.table("quality")) if own > best]
    said = f" BM25 over character n-grams is ahead of every arm in {', '.join(ahead)}."
    return said * bool(ahead)


# --- the claims --------------------------------------------------------------------------------


def verdicts(studies: Iterable[Kept]) -> pd.DataFrame:
    """A row a claim that was judged: claim, and a column a verdict, whose cells are the names of
    the studies that reached it; of several with the same runs the first."""
    found: dict[str, dict[str, list[str]]] = {}
    seen = set()
    for kept in studies:
        runs = _compared(kept)
        for row in kept.table("claims").itertuples():
            own = row.claim, runs.get(row.claim, kept.name)
            if row.verdict in VERDICTS and own not in seen:
                seen.add(own)
                found.setdefault(row.claim, {}).setdefault(row.verdict, []).append(kept.name)
    columns = sorted({v for own in found.values() for v in own}, key=VERDICTS.index)
    return pd.DataFrame(
        [
            {"claim": claim} | {v: tuple(found[claim].get(v, ())) for v in columns}
            for claim in _in_order(found)
        ]
    )


def _compared(kept: Kept) -> dict[str, tuple[float, ...]]:
    """Claim -> its differences: the same in two studies where they are of the same runs."""
    table = kept.table("comparisons")
    groups = table.groupby("claim", sort=False)["difference"] if len(table) else ()
    return {claim: tuple(own) for claim, own in groups}


def _in_order(found: Iterable[str]) -> list[str]:
    """Claims as lib.analysis.claims has them, then others as they come."""
    places = {claim.words: place for place, claim in enumerate(claims.CLAIMS)}
    return sorted(found, key=lambda claim: places.get(claim, len(places)))


def _in_all(found: list[str]) -> str:
    """`contradicted in 3`, `supported in 1, inconclusive in 2`."""
    counts = [f"{verdict} in {found.count(verdict)}" for verdict in dict.fromkeys(found)]
    return ", ".join(counts)


def comparisons(studies: Iterable[Kept]) -> pd.DataFrame:
    """For people to read: every comparison that decides a claim, a row each, claims together."""
    found = [(k.name, k.table("comparisons")) for k in studies]
    parts = [table.assign(study=name) for name, table in found if len(table)]
    if not parts:
        return pd.DataFrame()
    whole = pd.concat(parts, ignore_index=True)
    order = {claim: place for place, claim in enumerate(dict.fromkeys(whole["claim"]))}
    whole = whole.sort_values("claim", key=lambda c: c.map(order), kind="stable", ignore_index=True)
    return pd.concat([whole[["study"]], tables.compared(whole)], axis=1)


def untested(studies: Iterable[Kept]) -> dict[str, str]:
    """Claim -> why no study could test it."""
    every = [kept.table("claims") for kept in studies if len(kept.table("claims"))]
    if not every:
        return {}
    rows = pd.concat(every)
    decided = set(rows.loc[rows["verdict"] != claims.NOT_TESTED, "claim"])
    open_ones = rows[~rows["claim"].isin(decided)].groupby("claim", sort=False)["why"]
    return {claim: "; ".join(why.unique()) for claim, why in open_ones}


# --- what they rest on -------------------------------------------------------------------------


def rests_on(kept: Kept) -> str:
    """Training data, benchmark, encoder and training of a study, each in a few words."""
    if "laws" in kept.tables:
        return _of_law(kept.table("points"), kept.table("predictions"))
    parts = [_pairs(kept.made), _asked(kept), _encoder(kept.made.runs)]
    return "; ".join(part for part in parts if part) + "."


def _of_law(points: pd.DataFrame, said: pd.DataFrame) -> str:
    rungs = words.counted(points["rung"].nunique(), "rung")
    blind = said.loc[~said["known"], "target"].nunique()
    known = said.loc[said["known"], "target"].nunique()
    return (
        f"{rungs} (encoders that differ in alignment before fine-tuning), at "
        f"{words.counted(points['budget'].nunique(), 'budget')}; predictions for {blind} encoders "
        f"whose results were not known, and for {known} whose were."
    )


def _pairs(made: Trained) -> str:
    """`45,240 rows of xtreme_squad in 8 languages (da en ...)`; ranges where corpora differ."""
    sources = ", ".join(dict.fromkeys(one.source for one in made.corpora))
    if not made.rows:
        return sources
    languages = max((list(rows) for rows in made.rows), key=len)
    named = f" ({' '.join(languages)})" * (len(languages) <= 12)
    return (
        f"{_range(sum(rows.values()) for rows in made.rows)} rows of {sources} in "
        f"{_range(map(len, made.rows))} languages{named}"
    )


def _range(values: Iterable[float]) -> str:
    """`8`, or `4 to 110`."""
    found = sorted({*values})
    return " to ".join(f"{value:,g}" for value in dict.fromkeys([found[0], found[-1]]))


def _asked(kept: Kept) -> str:
    """The report's own benchmark, and how much it asked."""
    quality = kept.table("quality")
    if quality.empty:
        return f"asked {kept.made.benchmark}" * bool(kept.made.benchmark)
    row = quality[~quality["arm"].isin(UNTRAINED)].iloc[0]
    clusters = words.counted(int(row["clusters"]), "cluster")
    return f"asked {kept.made.benchmark}: {row['questions']:,.0f} questions in {clusters}"


def _encoder(runs: list[Train]) -> str:
    """The encoders, and how long they were trained."""
    trained = [run for run in runs if run.steps] or runs
    if not trained:
        return ""
    models = dict.fromkeys(map(_start, trained))
    steps, size = (_range(getattr(run, n) for run in trained) for n in ("steps", "batch_size"))
    return f"encoder {', '.join(models)}; {steps} steps of {size}"


def _start(run: Train) -> str:
    """What a run starts from: of another study's encoders, whose."""
    made = re.match(r"outputs/([^/]+)/runs/", run.model)
    if made:
        return f"those of the study {made[1]}"
    return run.model or f"from scratch, layers {run.layers}, width {run.width}"


def seeds(kept: Kept) -> str:
    """How many seeds its contrasts rest on; a dash where none is known."""
    names = ["points"] if "laws" in kept.tables else ["primary", "trend", "choices"]
    parts = [kept.table(name) for name in names]
    found = [s for table in parts if "seeds" in table for s in table["seeds"].dropna()]
    return _range(map(int, found)) if len(found) else "\N{EM DASH}"
