"""Sentences of the report, filled from its tables."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd
from IPython.display import HTML, Markdown

from lib import presets
from lib.analysis import stats
from lib.analysis.claims import NOT_TESTED
from lib.analysis.results import ENDS, WITH_ALPHA, Results, ScoredRun
from lib.analysis.showing import NOTHING, show
from lib.analysis.sums import stratum
from lib.metrics import REFERENCES, SETTINGS
from lib.params import Analyse, BenchmarkSpec, Train

MARKUP = r"([!-/:-@\[-`{-~])"  # what Markdown or HTML may read as more than itself
DECIDED = ("supported", "contradicted", "higher", "lower")
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


def about(results: Results, spec: BenchmarkSpec, source: str, rows: dict[str, int]) -> Markdown:
    """What the report is about in one paragraph: data, benchmark, encoder, training, seeds.

    source, rows: of the training pairs, and how many by language."""
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
        "encoder and this length of training."
    )


def _plain(text: str) -> str:
    """A user's text as Markdown that shows it as it is: no HTML, no markup."""
    return re.sub(MARKUP, r"\\\1", " ".join(text.split()))


def left_out(runs: list[ScoredRun]) -> Markdown:
    """Which runs are not analysed since their arms lack seeds, or were asked other questions;
    nothing where none are."""
    if not runs:
        return Markdown("")
    named = ", ".join(f"`{run.key}` ({run.arm}, seed {run.seed})" for run in runs)
    return Markdown(
        f"**Left out** {named}: arms are compared on the same seeds and the same questions. Train "
        "every arm with the same seeds, and prepare its texts alike, to have them all."
    )


def question(p: Analyse) -> Markdown:
    """What the study is to answer; nothing where it does not say."""
    return Markdown(f"# {_plain(p.question)}" if p.question else "")


def axis(p: Analyse) -> str:
    """The axis of a study as people say it; "" where it has none."""
    return p.axis.replace("_", " ")


def axis_label(p: Analyse) -> str:
    """The same for a figure's axis, with what is counted."""
    return AXES.get(p.axis, axis(p))


AXES = {"size": "share of training paragraphs, %", "share": "share of pairs kept, %"}


def asked(p: Analyse) -> HTML | Markdown:
    """What was asked for, beside what was measured, and which study file runs all of it."""
    table = pd.DataFrame(p.asked.items(), columns=["asked for", "measured here"])
    full = f" All of it: {p.full}." if p.full else ""
    return show(table, f"What was asked for, and what could be run here.{full}")


def first(answer: str) -> Markdown:
    """The answer of a study that is not about its primary contrasts, of lib.analysis.answers."""
    return Markdown(_strong(answer))


def rest(p: Analyse, runs: list[ScoredRun]) -> Markdown:
    """Of which runs of an axis all that follows is; nothing without an axis."""
    if not p.axis:
        return Markdown("")
    last = next(part for part in runs[0].folder.name.split(",") if part.startswith(f"{p.axis}="))
    return Markdown(f"**All below is of `{last}` alone.**")


def _strong(text: str) -> str:
    """Text of which nothing but `**words**` is markup."""
    return "**".join(re.sub(MARKUP, r"\\\1", part) for part in text.split("**"))


STRATEGIES = {
    "mono": "question and passage in one language, one language a batch",
    "x-x": "question and passage in one language, languages mixed in the batch",
    "cross": "question and passage in two languages, pairs of languages mixed in the batch",
    "cross-pair": "question and passage in two languages, one pair of languages a batch",
    "cross-fixed": "as cross, but each question keeps one partner language",
    "hybrid": "each batch is as in mono with probability alpha, else as in cross",
    "hybrid-pair": "each batch is as in mono with probability alpha, else as in cross-pair",
    "mix": "every batch mixes both kinds of pairs, each in one language with probability alpha",
    "en-en": "questions and passages in English alone",
}
PARTS = {
    "switched": "a share of the words of English texts gives way to translations",
    "in_language": "the softmax is over passages in the language of the right one",
    "negatives": "the softmax is over so many wrong passages at most",
    "temperature": "the same batches with that temperature of the loss in place of the arm's own",
    "lakda": "a question and its translation, embedded as well, are also to rank passages alike",
    "xlco": "a passage is also to be nearest to its own translation, embedded as well",
    "distil": "texts are also to stay where the encoder had their English before its first step",
}


def arms(results: Results) -> Markdown:
    """What the arms of a study are, each strategy once; in the order of STRATEGIES."""
    found = {run.train.strategy for run in results.runs if run.train.steps}
    said = [
        f"*{name}{'(alpha)' * (name in WITH_ALPHA)}*: {what}"
        for name, what in STRATEGIES.items()
        if name in found
    ]
    named = " ".join(results.arms)
    said += [f"*{name}*: {what}" for name, what in PARTS.items() if name in named]
    for code in dict.fromkeys(run.train.only for run in results.runs if run.train.only):
        said.append(f"*{code} alone*: as mono, but every batch is in {code}")
    if "untrained" in results.references:
        said.append("*untrained*: the encoder before its first step")
    ends = {name: pair for name, pair in ENDS.items() if name in found}
    lines = [f"{name} runs from {a} at 0 to {b} at 1" for name, (a, b) in ends.items()]
    alpha = f" Alpha is the share of same-language pairs: {', '.join(lines)}." if lines else ""
    return Markdown(
        "**Arms** are ways of composing batches; all start from the same weights for each seed, "
        f"see the same texts and take the same number of steps. {'; '.join(said)}.{alpha}"
    )


# --- the answer --------------------------------------------------------------------------------


def answer(primary: pd.DataFrame, ahead: str = "", special: str = "") -> Markdown:
    """The report's question answered in a sentence, from the table of lib.analysis.claims.primary:
    what is decided, what is not, or why nothing is. ahead: of `ahead_untrained`, to follow it.
    special: the answer of a study that need not have these contrasts, which stands above."""
    rows = dict(zip(("cost", "gain", "batch"), primary.to_dict("records"), strict=True))
    if all(row["why"] for row in rows.values()):
        why = "; ".join(dict.fromkeys(row["why"] for row in rows.values()))
        return Markdown(ahead.strip() if special else f"**Not answered here**: {why}.{ahead}")
    arm, mono, mix = rows["cost"]["arm"], rows["cost"]["versus"], rows["batch"]["versus"]
    against_mono = _against_mono(rows["cost"], rows["gain"])
    undecided = nothing_decided(rows.values())
    text = (
        f"{'t' if undecided else 'T'}raining on batches half of which are in one language and half "
        f"across languages ({arm}) {against_mono}, against one language a batch throughout "
        f"({mono}); against mixing both kinds inside every batch ({mix}) it "
        f"{effect(rows['batch'], 'over all settings')}."
    )
    return Markdown(undecided + text + ahead)


def in_short(primary: pd.DataFrame) -> str:
    """The same for readers who know the arms: a sentence, `**` around what is decided."""
    cost, gain, batch = primary.to_dict("records")
    reasons = [row["why"] for row in (cost, gain, batch)]
    if all(reasons):
        return f"**Not answered here**: {'; '.join(dict.fromkeys(reasons))}."
    undecided = nothing_decided((cost, gain, batch))
    return (
        f"{undecided}{cost['arm']} {_against_mono(cost, gain)}, against {cost['versus']}; against "
        f"{batch['versus']} it {effect(batch, 'over all settings')}."
    )


def _against_mono(cost: dict, gain: dict) -> str:
    effects = effect(cost, "within a language"), effect(gain, "across languages")
    return " and ".join(effects)


def effect(row: dict, where: str) -> str:
    """What a contrast says of `arm`, as the rest of a sentence: a verb, a size, its interval."""
    if row.get("why"):
        return f"was not compared {where} ({row['why']})"
    signed = stats.signed(row["difference"], row["low"], row["high"])
    if row["verdict"] in DECIDED:
        verb = "gains" if row["difference"] > 0 else "loses"
        small = f", below the margin of {stats.MARGIN:g} fixed beforehand"
        small *= abs(row["difference"]) < stats.MARGIN
        return f"**{verb} {size(row)} mAP {where}**{small}"
    if row["verdict"] == "equivalent":
        return f"**differs by no more than {stats.MARGIN:g} mAP {where}** ({signed})"
    if row["verdict"] == stats.NO_VERDICT:
        return f"differs by {signed} mAP {where}"
    detectable = f"; {row['detectable']:.3f} could have been detected"
    return f"**neither gains nor loses for certain {where}** ({signed} mAP{detectable})"


def size(row: dict) -> str:
    """A significant difference without its sign, with its interval: of a loss turned round. As
    many digits as show that the interval is without zero, three or more."""
    ends = row["low"], row["high"]
    low, high = ends if row["difference"] > 0 else (-ends[1], -ends[0])
    digits = next((d for d in range(3, 7) if round(low, d)), 3)
    return f"{abs(row['difference']):.3f} [{low:.{digits}f}, {high:.3f}]"


def nothing_decided(rows: Iterable[dict]) -> str:
    """Why none of the contrasts has a verdict, as a sentence to come first; empty where one has."""
    tested = [row for row in rows if not row.get("why")]
    if any(row["verdict"] != stats.NO_VERDICT for row in tested):
        return ""
    seeds = min(int(row["seeds"]) for row in tested)
    if seeds >= stats.SEEDS:
        return "**Undecided: one cluster of questions decides nothing.** So far: "
    which = f"{seeds} seeds decide" if seeds > 1 else "one seed decides"
    return f"**Undecided: {which} nothing; {NUMBERS[stats.SEEDS]} are needed.** So far: "


def following(lead: str, text: str) -> str:
    """A sentence after another, or after its own beginning: `So far: `."""
    return lead + (text[0].lower() + text[1:] if lead.endswith(": ") else text)


def beside(results: Results, quality: pd.DataFrame, note: str = "") -> Markdown:
    """What belongs to the answer: what brackets and mAP are, over how much, and how far a ranker
    comes that is not trained. quality: of lib.analysis.tables. note: what readers must know."""
    seeds, clusters = int(quality["seeds"].max()), int(quality["clusters"].max())
    brackets = "Brackets: 95 % intervals over" if min(seeds, clusters) > 1 else "Over"
    return Markdown(
        f"{brackets} {counted(seeds, 'seed')} and {counted(clusters, 'cluster')} of questions. "
        "mAP: mean average precision, 1 where every relevant passage comes first. "
        f"{_headline(results)} {_reached_untrained(results, quality)}"
        + f"\n\n**Note.** {_plain(note)}"
        * bool(note)
    )


def _headline(results: Results) -> str:
    """Which questions figures are of, and what its words mean."""
    words = stratum(results.sums)
    text = f"Figures are of the *headline stratum*, unless they say otherwise: {words[0].lower()}"
    explained = {
        "Two-hop": "a two-hop question joins two facts",
        "held-out wording": "no training question has a held-out wording",
    }
    notes = ", ".join(note for term, note in explained.items() if term in words)
    return f"{text}{words[1:-1]}{f' ({notes})' * bool(notes)}."


def counted(number: int, what: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {what}{'s' * (number != 1)}"


def ahead_untrained(results: Results, quality: pd.DataFrame) -> str:
    """A sentence, to follow others: in which settings BM25 over character n-grams is ahead of every
    arm; empty where it is in none. quality: of lib.analysis.tables."""
    ahead = [
        name for name, (own, best) in _untrained_ranker(results, quality).items() if own > best
    ]
    if not ahead:
        return ""
    listed = " and ".join([", ".join(ahead[:-1]), ahead[-1]] if len(ahead) > 1 else ahead)
    return (
        " **Without any training, BM25 over character n-grams has a higher mAP than every arm in "
        f"{listed}.**"
    )


def _untrained_ranker(results: Results, quality: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Setting -> mAP of BM25 over character n-grams, and of the best arm."""
    ap = quality[quality["metric"] == "ap"].set_index(["arm", "setting"])["estimate"]
    return {
        setting: (ap[REFERENCES["bm25_chars"], setting], max(ap[a, setting] for a in results.arms))
        for setting in results.settings
    }


def _reached_untrained(results: Results, quality: pd.DataFrame) -> str:
    """How BM25 over character n-grams compares with the best arm of each setting."""
    reached = [
        f"{own:.3f} in {setting} (best arm {best:.3f})"
        for setting, (own, best) in _untrained_ranker(results, quality).items()
    ]
    asked = quality[quality["metric"] == "ap"].set_index(["arm", "setting"])["questions"]
    some, every = asked[REFERENCES["bm25_chars"], "mono"], asked[results.arms[0], "mono"]
    sample = f", on a sample of {some:,} of {every:,} questions" if some < every else ""
    return (
        "BM25 over character n-grams, which no training makes, reaches "
        f"{', '.join(reached)}{sample}."
    )


STRATA = {
    "hop": "*hops* are the facts that a question needs; two-hop questions join two (which currency "
    "is used where this city is?)",
    "held-out": "*held-out* and *seen* say whether a question's sentence pattern was trained on",
    "names": "*names* tell how alike the answer's names are spelled in the two languages, of the "
    "headline's questions alone",
    "trained": "*trained* tells which of the languages of question and passages were trained on",
    "script": "*script* tells whether the two languages are written alike",
}


def strata(table: pd.DataFrame) -> Markdown:
    """What the strata of lib.analysis.tables.strata are, those that are there; nothing of none."""
    named = " ".join(table["stratum"].unique())
    said = "; ".join(what for term, what in STRATA.items() if term in named)
    return Markdown(f"Here {said}." if said else "")


def not_measured(verdicts: pd.DataFrame) -> Markdown:
    """Claims that a study has no arms or data for, with the reason. verdicts: of
    lib.analysis.claims."""
    rows = verdicts[verdicts["verdict"] == NOT_TESTED]
    lines = [f"- {claim}: {why}." for claim, why in zip(rows["claim"], rows["why"], strict=True)]
    return Markdown("\n".join(["**Not tested here**", "", *lines])) if lines else NOTHING


# --- one run -----------------------------------------------------------------------------------


def titled(tables: dict[str, pd.DataFrame]) -> HTML | Markdown:
    """Tables below each other, each under its name; NOTHING where there are none."""
    parts = [f"<h3>{name}</h3>{table.to_html()}" for name, table in tables.items() if len(table)]
    return HTML("".join(parts)) if parts else NOTHING


def training(p: Train) -> Markdown:
    """What is about to be trained; of a checkpoint also what it is trained with."""
    what = f"`{p.run}`: {p.strategy}, {p.steps} steps of {p.batch_size} pairs"
    if not p.model:
        return Markdown(f"{what}, an encoder from scratch.")
    names = (*presets.FROM_CHECKPOINT, "max_length")  # 0: what its files say
    values = ", ".join(f"{name} {x:g}" for name in names if (x := getattr(p, name)))
    sides = ("question_prompt", "passage_prompt")
    prompts = "".join(f", {side} {text!r}" for side in sides if (text := getattr(p, side)))
    seen = presets.SEEN.get(p.model.partition("@")[0], "")
    warned = f" Its authors fine-tuned it on {seen}: compare arms, not levels." if seen else ""
    return Markdown(f"{what}, from the checkpoint {p.model} with {values}{prompts}.{warned}")


def trained(p: Train, log: pd.DataFrame, cost: dict, exposure: dict) -> Markdown:
    """How a run went."""
    if not len(log):
        return Markdown(f"`{p.run}`: the untrained encoder.")
    first, last = log["loss"].head(20).mean(), log["loss"].tail(20).mean()
    return Markdown(
        f"`{p.run}`: {len(log)} steps of {p.batch_size} pairs; the loss went from {first:.2f} to "
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


def provenance(runs: int, commits: list[str], tables: list[str]) -> Markdown:
    """Which commits the runs were made with, and why they may be several; then links to the saved
    tables."""
    text = f"{counted(runs, 'run')} made with {', '.join(commits)}."
    mixed = (
        "Several, since runs were added, or taken from a ledger; each run's page has its own. "
        "`make clean STUDY=...` starts afresh."
    )
    links = ", ".join(f"[{name}.csv](tables/{name}.csv)" for name in tables)
    return Markdown(f"{text} {mixed * (len(commits) > 1)}\n\nTables: {links}.")
