"""Sentences of the report, filled from its tables."""

from __future__ import annotations

import re

import pandas as pd
from IPython.display import HTML, Markdown

from lib.analysis import stats
from lib.analysis.results import Results, ScoredRun
from lib.analysis.sums import stratum
from lib.metrics import REFERENCES, SETTINGS
from lib.params import FROM_CHECKPOINT, BenchmarkSpec, Train

TOLD_APART = {"supported": "told apart by this interval alone", "equivalent": "equivalent to it"}


def about(
    results: Results, spec: BenchmarkSpec, source: str, rows: dict[str, int], note: str = ""
) -> Markdown:
    """What the report is about in one paragraph: data, benchmark, encoder, training, seeds.

    source, rows: of the training pairs, and how many by language. note: what readers must know."""
    trains = [run.train for run in results.runs if run.train.steps] or [results.runs[0].train]

    def each(name: str) -> str:
        return " / ".join(dict.fromkeys(f"{getattr(train, name):g}" for train in trains))

    scratch = f"from scratch, layers {each('layers')}, width {each('width')}"
    models = dict.fromkeys(train.model or scratch for train in trains)
    seeds = ", ".join(map(str, sorted({train.seed for train in trains})))
    return Markdown(
        f"**Training data** {source}: {sum(rows.values()):,} rows in {len(rows)} "
        f"languages ({', '.join(rows)}). **Benchmark** {results.name} ({spec.format}): "
        f"{results.cells['question_language'].nunique()} languages. **Encoder** "
        f"{', '.join(map(_plain, models))}. **Training** {each('steps')} steps of "
        f"{each('batch_size')} pairs, seeds {seeds}. Figures hold for this data, this "
        "encoder and this length of training." + f"\n\n**Note.** {_plain(note)}" * bool(note)
    )


def _plain(text: str) -> str:
    """A user's text as Markdown that shows it as it is: no HTML, no markup."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def left_out(runs: list[ScoredRun]) -> Markdown:
    """Which runs are not analysed since their arms lack seeds; nothing where none are."""
    if not runs:
        return Markdown("")
    named = ", ".join(f"`{run.key}` ({run.arm}, seed {run.seed})" for run in runs)
    return Markdown(
        f"**Left out** {named}: arms are compared on the same seeds. Train every arm with the same "
        "ones to have them all."
    )


def findings(
    results: Results,
    quality: pd.DataFrame,
    gaps: pd.DataFrame,
    primary: pd.DataFrame,
    verdicts: pd.DataFrame,
) -> Markdown:
    """The report's first words, computed from its tables."""
    ap = quality[quality["metric"] == "ap"].set_index(["arm", "setting"])
    lines = [_of_setting(results.arms, ap, gaps, setting) for setting in results.settings]
    bm25 = ap.loc[(REFERENCES["bm25_chars"], "mono")]
    sample = ""
    if bm25["questions"] < (every := ap.loc[(results.arms[0], "mono"), "questions"]):
        sample = f" on a sample of {bm25['questions']:,} of {every:,} questions"
    seeds, clusters = int(quality["seeds"].max()), int(quality["clusters"].max())
    intervals = "with 95 % intervals" if min(seeds, clusters) > 1 else "too few for intervals"
    return Markdown(
        "\n".join(
            [
                f"{stratum(results.sums)} Over {seeds} seed{'s' * (seeds > 1)} and {clusters} "
                f"cluster{'s' * (clusters > 1)} of questions, {intervals}:",
                "",
                *map(_of_contrast, primary.to_dict("records")),
                *lines,
                "- without training, BM25 over character n-grams reaches "
                f"{bm25['estimate']:.3f} in mono{sample};",
                f"- exploratory claims (last table): {_counts(verdicts)}.",
            ]
        )
    )


def _of_contrast(row: dict) -> str:
    """A primary contrast: its difference, and what is decided."""
    name, _, words = row["claim"].partition(": ")
    if row["why"]:
        return f"- **{name}** ({words}): {row['verdict']}, {row['why']};"
    gap = f"{row['difference']:+.3f} {stats.shown(row['low'], row['high'], '+.3f')} mAP"
    decided = {
        stats.NO_VERDICT: f"no verdict: a test needs {stats.SEEDS} seeds and several clusters"
    }
    verdict = decided.get(row["verdict"], row["verdict"])
    if row["verdict"] in ("inconclusive", stats.NO_VERDICT) and pd.notna(row["detectable"]):
        verdict += f" (detectable: {row['detectable']:.3f})"
    return f"- **{name}** ({words}): {gap}, {verdict};"


def _counts(verdicts: pd.DataFrame) -> str:
    """How many claims have which verdict; those of the leak audit have none."""
    found = verdicts.loc[verdicts["family"] == "exploratory", "verdict"]
    named = found.replace(stats.NO_VERDICT, "without a verdict")
    return ", ".join(f"{n} {v}" for v, n in named.value_counts().items())


def _of_setting(arms: list[str], ap: pd.DataFrame, gaps: pd.DataFrame, setting: str) -> str:
    """Which arm is best in a setting, and by how much; of one arm only what it reaches."""
    best = max(arms, key=lambda arm: ap.loc[(arm, setting), "estimate"])
    row = ap.loc[(best, setting)]
    reached = f"{row['estimate']:.3f} {stats.shown(row['low'], row['high'])}"
    if len(arms) == 1:
        return f"- **{setting}**: {best}, the only arm here, reaches an mAP of {reached}"
    gap = gaps[(gaps["arm"] == best) & (gaps["setting"] == setting)].iloc[0]
    return (
        f"- **{setting}**: **{best}** has the highest mAP, {reached}; {gap['difference']:+.3f} "
        f"{stats.shown(gap['low'], gap['high'], '+.3f')} to the next, {gap['versus']} "
        f"({TOLD_APART.get(gap['verdict'], 'not told apart')})"
    )


def titled(tables: dict[str, pd.DataFrame]) -> HTML:
    """Tables below each other, each under its name; a word where there are none."""
    parts = [f"<h3>{name}</h3>{table.to_html()}" for name, table in tables.items() if len(table)]
    return HTML("".join(parts) or "<p>None in this study.</p>")


# --- one run -----------------------------------------------------------------------------------


def training(p: Train) -> Markdown:
    """What is about to be trained; of a checkpoint also what it is trained with."""
    what = f"`{p.run}`: {p.strategy}, {p.steps} steps of {p.batch_size} pairs"
    if not p.model:
        return Markdown(f"{what}, an encoder from scratch.")
    values = ", ".join(f"{name} {getattr(p, name):g}" for name in FROM_CHECKPOINT)
    return Markdown(f"{what}, from the checkpoint {p.model} with {values}.")


def trained(p: Train, log: pd.DataFrame, cost: dict, exposure: dict) -> Markdown:
    """How a run went."""
    if not len(log):
        return Markdown(f"`{p.run}`: the untrained encoder.")
    first, last = log["loss"].head(20).mean(), log["loss"].tail(20).mean()
    return Markdown(
        f"`{p.run}`: {len(log)} steps of {p.batch_size} pairs; the loss fell from {first:.2f} to "
        f"{last:.2f} nats at {cost['pairs_per_second']:,.0f} pairs a second, "
        f"{cost['padded_share']:.0%} of the token places being padding. "
        f"{exposure['monolingual']:.0%} of the rows were monolingual, and a question had "
        f"{exposure['negatives']:.1f} negatives on average."
    )


def evaluated(run: str, benchmark: str, means: pd.DataFrame, share: pd.DataFrame) -> Markdown:
    """How well a run's encoder retrieves, and whom it prefers.

    means: lib.study.results.save_scores; share: lib.metrics.language_share."""
    headline = means.loc["headline"]
    settings = [setting for setting in SETTINGS if setting in headline.index]
    values = ", ".join(f"{headline.loc[setting, 'ap']:.3f} {setting}" for setting in settings)
    text = f"`{run}` on the headline stratum of {benchmark}: mAP {values}"
    advantage = headline["own_language_advantage"].get("multi")
    if pd.notna(advantage):
        text += f"; own-language advantage {advantage:+.2f} (log rank)"
    overall = share[share["question_language"] == "*"].set_index("candidate_language")
    most = overall["lift"].idxmax()
    return Markdown(
        f"{text}. Of all questions' top 10, {most} holds {overall.loc[most, 'lift']:.2f} times its "
        "share of the pool."
    )


def provenance(runs: int, commits: list[str]) -> Markdown:
    """Which commits the runs were made with, and a warning where they are several."""
    text = f"{runs} runs made with {', '.join(commits)}."
    mixed = (
        "**Warning**: runs of different commits are mixed; `make clean STUDY=...` starts afresh."
    )
    return Markdown(f"{text} {mixed}" if len(commits) > 1 else text)
