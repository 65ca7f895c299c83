"""Tables of the report: arms with intervals, paired differences, bias, strata, exposure, words.

Every function takes the `Results` of a study and returns a tidy DataFrame, which the notebook
shows, plots and saves; the findings are sentences filled with numbers from these tables.
"""

from __future__ import annotations

import pandas as pd

from lib import params, published, stats, store
from lib.params import Analyse, BenchmarkSpec
from lib.results import QUALITY, Results, accuracy, headline, macro_mean, stratum

LABELS = {
    "ap": "mAP",
    "ap20": "mAP@20",
    "r1": "R@1",
    "r10": "R@10",
    "r100": "R@100",
    "ndcg10": "nDCG@10",
    "rank_distance": "rank distance",
    "rank_distance_ratio": "rank distance / chance",
    "max_at_r": "Max@R",
    "own_language_advantage": "own-language advantage",
}
STRATA = (
    ("mono", ["hops", "wording"]),
    ("mono", ["trained"]),
    ("cross", ["hops", "wording"]),
    ("cross", ["names"]),
    ("cross", ["trained"]),
)


TRAINED = (
    ("mono", "both"),
    ("mono", "neither"),
    ("cross", "both"),
    ("cross", "one"),
    ("cross", "neither"),
)


def _row(results: Results, arm, setting, metric, select=headline, **extra) -> dict:
    found = stats.interval(results.table(arm, setting, metric, select))
    return {
        "arm": arm,
        "setting": setting,
        "metric": metric,
        "estimate": found.estimate,
        "low": found.low,
        "high": found.high,
        "seeds": found.seeds,
        "clusters": found.clusters,
        **extra,
    }


def quality(results: Results, metrics=QUALITY) -> pd.DataFrame:
    """Every arm and reference in every setting and metric, headline stratum, with intervals."""
    return pd.DataFrame(
        [
            _row(results, arm, setting, metric)
            for arm in (*results.arms, *results.references)
            for setting in results.settings
            for metric in metrics
        ]
    )


def elsewhere(others: dict[str, Results]) -> pd.DataFrame:
    """As `quality`, of further benchmarks; column `benchmark`."""
    parts = [quality(own).assign(benchmark=name) for name, own in others.items()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def with_published(table: pd.DataFrame, results: Results, spec: BenchmarkSpec) -> pd.DataFrame:
    """The benchmark's usual measures by setting for people to read (mAP; nDCG@10 and R@100 of BEIR
    and MIRACL), and below them the mAP that others published on it."""
    metrics = ("ndcg10", "r100") if spec.format in ("beir", "miracl") else ("ap",)
    parts = {m: wide(table[table["metric"] == m], "setting") for m in metrics}
    if len(metrics) > 1:
        return pd.concat({LABELS[m]: part for m, part in parts.items()}, axis=1)
    return pd.concat([parts["ap"], published.rows(spec, results.questions)]).fillna("")


def sentence_search(study: str, specs: dict[str, BenchmarkSpec], only: str = "") -> pd.DataFrame:
    """Tatoeba by arm and direction, mean over languages, for people to read: columns `<benchmark>,
    <direction>, accuracy` and `..., F1`; empty where it was not asked for. Intervals resample
    languages."""
    columns: dict[str, dict[str, str]] = {}
    for name in (n for n, spec in specs.items() if spec.format == "tatoeba"):
        for (arm, direction), own in accuracy(study, name, only).groupby(
            ["arm", "direction"], sort=False
        ):
            for metric, label in (("accuracy", "accuracy"), ("f1", "F1")):
                column = columns.setdefault(f"{name}, {direction}, {label}", {})
                column[arm] = _mean_over_languages(own.assign(value=own[metric]))
    return pd.DataFrame(columns)


def _mean_over_languages(table: pd.DataFrame) -> str:
    """The mean, with its interval where there are several languages."""
    if table["cluster"].nunique() == 1:
        return f"{table['value'].mean():.3f}"
    found = stats.interval(table[["seed", "cluster", "value", "weight"]])
    return f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"


def by_training(results: Results) -> pd.DataFrame:
    """mAP by whether the encoder was trained on the languages of question and pool, for people to
    read: columns `mono, both trained`, ...; empty where it was trained on all."""
    rows, sums = [], results.sums
    for setting, value in TRAINED if "trained" in sums else ():
        if not ((sums["setting"] == setting) & (sums["trained"] == value)).any():
            continue
        for arm in (*results.arms, *results.references):
            own = _row(results, arm, setting, "ap", lambda t, value=value: t[t["trained"] == value])
            rows.append(own | {"part": f"{setting}, {value} trained"})
    return wide(pd.DataFrame(rows), "part") if rows else pd.DataFrame()


def bias(results: Results) -> pd.DataFrame:
    """Language bias of every arm and reference over the whole pool, with intervals; empty where
    no question has parallel passages in several languages."""
    return pd.DataFrame(
        [
            _row(results, arm, "multi", metric, measure=metric)
            for arm in (*results.arms, *results.references)
            for metric in results.biases
        ]
    )


def wide(table: pd.DataFrame, columns: str, intervals: bool = True) -> pd.DataFrame:
    """Rows arms, columns the values of `columns` (setting or metric), for people to read: cells
    `estimate [low, high]`, or the estimate alone."""
    digits = dict.fromkeys(("rank_distance", "max_at_r"), 1)
    text = [
        f"{r.estimate:.{d}f}" + f" [{r.low:.{d}f}, {r.high:.{d}f}]" * intervals
        for r in table.itertuples()
        for d in [digits.get(r.metric, 3)]
    ]
    named = table.assign(text=text, metric=table["metric"].map(LABELS))
    found = named.pivot(index="arm", columns=columns, values="text")
    found = found.reindex(index=dict.fromkeys(named["arm"]), columns=dict.fromkeys(named[columns]))
    return found.rename_axis(index=None, columns=None)


def about(results: Results, spec: BenchmarkSpec, p: Analyse):
    """What the report is about in one paragraph: data, benchmark, encoder, training, seeds."""
    from IPython.display import Markdown

    trained = [run.train for run in results.runs if run.train.steps]
    first = trained[0] if trained else results.runs[0].train
    prepare = store.read_json(params.corpus_dir(p.study, first.corpus) / "params.json")
    counts = store.read_json(params.corpus_dir(p.study, first.corpus) / "data/manifest.json")
    rows = counts["counts"]["rows"]

    def each(name: str) -> str:
        return " / ".join(
            dict.fromkeys(f"{getattr(train, name):g}" for train in trained or [first])
        )

    scratch = f"from scratch, layers {each('layers')}, width {each('width')}"
    models = dict.fromkeys(train.model or scratch for train in trained or [first])
    return Markdown(
        f"**Training data** {prepare['source']}: {sum(rows.values()):,} rows in {len(rows)} "
        f"languages ({', '.join(rows)}). **Benchmark** {results.name} ({spec.format}): "
        f"{results.cells['question_language'].nunique()} languages. **Encoder** "
        f"{', '.join(models)}. **Training** {each('steps')} steps of {each('batch_size')} pairs, "
        f"seeds {', '.join(map(str, sorted({train.seed for train in trained or [first]})))}. "
        "Figures hold for this data, this encoder and this length of training."
        + f"\n\n**Note.** {p.note}"
        * bool(p.note)
    )


def points(results: Results) -> pd.DataFrame:
    """One row a run of a trained arm: arm, seed, and mAP in mono, cross and multi."""
    parts = []
    for arm in results.arms:
        seeds = {}
        for setting in results.settings:
            table = results.table(arm, setting)
            total = (table["value"] * table["weight"]).groupby(table["seed"]).sum()
            seeds[setting] = total / table["weight"].groupby(table["seed"]).sum()
        parts.append(pd.DataFrame(seeds).rename_axis("seed").reset_index().assign(arm=arm))
    return pd.concat(parts, ignore_index=True)[["arm", "seed", *results.settings]]


def regions(results: Results) -> dict:
    """arm -> ((mono, cross) mAP, ellipse [n, 2]) for the trade-off plane."""
    found = {
        arm: stats.region(results.table(arm, "mono"), results.table(arm, "cross"))
        for arm in results.arms
    }
    return {arm: ((r.x.estimate, r.y.estimate), r.points) for arm, r in found.items()}


def front(means: dict) -> list[str]:
    """Arms whose (mono, cross) mean no other arm beats in both. means: arm -> (mono, cross)."""
    return [
        arm for arm, best in zip(means, stats.pareto(list(means.values())), strict=True) if best
    ]


def marks(table: pd.DataFrame, arms: list[str]) -> dict[str, tuple[float, float]]:
    """arm -> its (mono, cross) mAP, of those that `table` (of `quality`) has."""
    own = table[(table["metric"] == "ap") & table["arm"].isin(arms)]
    ap = own.pivot(index="arm", columns="setting", values="estimate")
    return {arm: tuple(ap.loc[arm, ["mono", "cross"]]) for arm in arms if arm in ap.index}


def differences(results: Results) -> pd.DataFrame:
    """Each arm against the best other arm of each setting, paired by seed and question."""
    rows = []
    for setting in results.settings:
        tables = {arm: results.table(arm, setting) for arm in results.arms}
        means = {arm: stats.interval(table).estimate for arm, table in tables.items()}
        for arm in results.arms if len(tables) > 1 else ():
            best = max((other for other in means if other != arm), key=means.get)
            gap = stats.paired(tables[arm], tables[best])
            rows.append(
                {
                    "arm": arm,
                    "versus": best,
                    "setting": setting,
                    "difference": gap.difference.estimate,
                    "low": gap.difference.low,
                    "high": gap.difference.high,
                    "p": gap.p,
                    "verdict": stats.verdict(gap.difference),
                }
            )
    return pd.DataFrame(rows)


def strata(results: Results) -> pd.DataFrame:
    """mAP of each arm by hops and wording, by names (cross, headline questions), and by whether
    the languages of question and passages were trained on."""
    rows = []
    for setting, keys in STRATA:
        block = results.sums[results.sums["setting"] == setting]
        block = block[block["arm"].isin(results.arms)]
        if not set(keys) <= set(block):
            continue
        if keys == ["names"]:
            block = headline(block, names=False)
        means = macro_mean(block, ["arm", *keys])
        for (arm, *values), value in means.items():
            label = f"{values[0]} {keys[0]}" if len(keys) == 1 else ", ".join(values)
            rows.append({"arm": arm, "setting": setting, "stratum": label, "estimate": value})
    order = {arm: place for place, arm in enumerate(results.arms)}
    return pd.DataFrame(rows, columns=["arm", "setting", "stratum", "estimate"]).sort_values(
        "arm", key=lambda arms: arms.map(order), kind="stable", ignore_index=True
    )


def exposure(results: Results) -> pd.DataFrame:
    """What each arm saw, mean over seeds: pairs, distinct texts and positives, tokens, FLOPs."""
    rows = []
    for run in results.runs:
        if run.train.steps:
            seen = store.read_json(run.folder / "exposure.json")
            rows.append({"arm": run.arm} | {k: v for k, v in seen.items() if k != "languages"})
    return pd.DataFrame(rows).groupby("arm", sort=False).mean(numeric_only=True)


def commits(results: Results) -> list[str]:
    """Commits that the runs were made with; more than one is a reason to warn."""
    found = [store.read_json(r.folder / "provenance.json") for r in results.runs]
    return sorted({f"{p['commit']}{' with changes' if p['dirty'] else ''}" for p in found})


def bootstrap(results: Results, draws: int) -> pd.DataFrame:
    """The headline intervals beside percentile bootstrap intervals over seeds and clusters: arm x
    setting, cells `[t interval] [bootstrap]`."""
    rows = {}
    for arm in results.arms:
        rows[arm] = {}
        for setting in results.settings:
            table = results.table(arm, setting)
            t, (low, high) = stats.interval(table), stats.bootstrap(table, draws)
            rows[arm][setting] = f"[{t.low:.3f}, {t.high:.3f}] [{low:.3f}, {high:.3f}]"
    return pd.DataFrame(rows).T


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """The comparisons behind the claims, for people to read."""
    if not len(table):
        return table
    gap = [f"{r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}]" for r in table.itertuples()]
    return pd.DataFrame(
        {
            "claim": table["claim"].str.split(":").str[0],
            "difference": table["arm"] + " − " + table["versus"],
            "setting": table["setting"],
            "metric": table["metric"].map(LABELS),
            "value [95 %]": gap,
            "beyond": table["null"],
            "p (Holm)": ["< .001" if p < 0.0005 else f"{p:.3f}" for p in table["p_holm"]],
            "verdict": table["verdict"],
        }
    )


def titled(tables: dict[str, pd.DataFrame]):
    """Tables below each other, each under its name; a word where there are none."""
    from IPython.display import HTML

    parts = [f"<h3>{name}</h3>{table.to_html()}" for name, table in tables.items() if len(table)]
    return HTML("".join(parts) or "<p>None in this study.</p>")


def seen(table: pd.DataFrame) -> pd.DataFrame:
    """`exposure`, for people to read."""
    named = table.rename_axis(None).rename(
        columns={
            "pairs": "rows",
            "question_texts": "distinct questions",
            "passage_texts": "distinct passages",
            "positives": "distinct positives",
            "substituted": "rows that gave way",
            "monolingual": "share monolingual",
        }
    )
    named["GFLOP"] = named.pop("flops") / 1e9
    share = named.pop("share monolingual").map("{:.2f}".format)
    return named.map("{:,.0f}".format).assign(**{"share monolingual": share})


def findings(results: Results, table: pd.DataFrame, gaps: pd.DataFrame, verdicts: pd.DataFrame):
    """The report's first words, computed from its tables."""
    from IPython.display import Markdown

    ap = table[table["metric"] == "ap"].set_index(["arm", "setting"])
    said = []
    for setting in results.settings:
        best = max(results.arms, key=lambda arm: ap.loc[(arm, setting), "estimate"])
        own = ap.loc[(best, setting)]
        said.append(
            f"- **{setting}**: **{best}** has the highest mAP, {own['estimate']:.3f} "
            f"[{own['low']:.3f}, {own['high']:.3f}]{_lead(gaps, best, setting)}"
        )
    bm25 = ap.loc[("BM25 char n-grams", "mono"), "estimate"]
    counts = ", ".join(f"{n} {v}" for v, n in verdicts["verdict"].value_counts().items())
    seeds, clusters = int(table["seeds"].max()), int(table["clusters"].max())
    return Markdown(
        "\n".join(
            [
                f"{stratum(results.sums)} Over {seeds} seed{'s' * (seeds > 1)} and {clusters} "
                "clusters of questions, with 95 % intervals:",
                "",
                *said,
                f"- without training, BM25 over character n-grams reaches {bm25:.3f} in mono;",
                f"- claims (last table): {counts}.",
            ]
        )
    )


def _lead(gaps: pd.DataFrame, arm: str, setting: str) -> str:
    """By how much the best arm leads the second, and whether that can be told from none."""
    if not len(gaps):
        return ""
    gap = gaps[(gaps["arm"] == arm) & (gaps["setting"] == setting)].iloc[0]
    told = {"supported": "told apart by this interval alone", "equivalent": "equivalent to it"}.get(
        gap["verdict"], "not told apart"
    )
    return (
        f"; {gap['difference']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}] to the next, "
        f"{gap['versus']} ({told})"
    )
