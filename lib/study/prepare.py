"""Build a corpus and all that is made once for it: tokenizer, name strata."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lib import metrics, sources, store
from lib.benchmarks import heldout, references
from lib.corpus import ParallelCorpus
from lib.metrics import REFERENCES
from lib.params import Prepare
from lib.sources.cldr_facts import shuffled
from lib.study import inputs, paths
from lib.study.evaluate import with_references
from lib.training.provenance import provenance
from lib.training.tokenizer import tokenizer_texts, train_tokenizer

COUNTED = 100_000  # rows whose tokens are counted


def prepare(p: Prepare) -> ParallelCorpus:
    """The corpus of `p`: read if its folder verifies, else built and written whole.

    Raises ValueError for parameters that the source refuses, and for those, or inputs, that are
    not what the folder was made from."""
    folder = paths.corpus_dir(p.study, p.run)
    inputs.forget_unmade(folder)
    inputs.remember(folder, p)
    data = folder / "data"
    return store.made(partial(ParallelCorpus.load, data), partial(_make, p, data))


def _make(p: Prepare, data: Path) -> None:
    """Write a corpus, its tokenizer and name strata."""
    with _scratch(data.parent) as place:
        corpus = sources.build_corpus(p, place)
        _require_held_out(corpus, p)
        with store.atomic_folder(data, corpus.meta | {"dev": p.dev}) as new:
            corpus.save(new)
            tokenizer = train_tokenizer(tokenizer_texts(corpus), p.vocabulary)
            tokenizer.save(str(new / "tokenizer.json"), pretty=False)
            names = heldout.name_strata(corpus)
            if len(names):
                names.to_parquet(new / "names.parquet", index=False)
            store.write_json(new / "provenance.json", provenance(p.model_dump()))


def _require_held_out(corpus: ParallelCorpus, p: Prepare) -> None:
    """Raises ValueError for a fold that leaves nothing to test on."""
    if not len(corpus.test):
        raise ValueError(
            f"fold: {p.fold} of {p.folds} holds out no group (expected fewer folds, or more groups)"
        )


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder below `folder`, removed at the end, as is one that a killed process left.

    One process at a time: whoever holds `folder`."""
    place = Path(folder) / ".scratch"
    shutil.rmtree(place, ignore_errors=True)
    store.make_folder(place)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def heldout_tables(corpus: ParallelCorpus) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of the reference rankers on the held-out split, and its leak audit."""
    folder = with_references("heldout", heldout.load_benchmark(corpus), corpus)
    return tuple(pd.read_parquet(folder / f"{name}.parquet") for name in ("references", "leaks"))


# --- what 01_prepare shows ---------------------------------------------------------------------


def sample(corpus: ParallelCorpus, hops: str, languages: int) -> pd.DataFrame:
    """One test question of a stratum (any where there are none) in several languages: question,
    relevant passage, and the other passage that BM25 over character n-grams likes best."""
    test = corpus.test.to_pandas()
    wanted = test
    if "hops" in test and (test["hops"] == hops).any():
        wanted = test[(test["hops"] == hops) & (test["wording"] == "held-out")]
    pair = shuffled(wanted["pair"].unique(), key=lambda pair: f"{hops} {pair}")[0]
    rows = wanted[wanted["pair"] == pair].iloc[:languages]
    pool, examples = corpus.pool.to_pandas(), []
    for row in rows.itertuples():
        passages = pool[pool["language"] == row.language].reset_index(drop=True)
        relevant = passages["passage_id"] == row.passage_id
        others = passages.loc[~relevant, "passage"].tolist()
        _, scores = next(references.bm25_tiles([row.question], others, references.char_ngrams))
        examples.append(
            {
                "language": row.language,
                "question": row.question,
                "relevant passage": passages.loc[relevant, "passage"].iloc[0],
                "hard distractor": others[scores[0].argmax()],
            }
        )
    return pd.DataFrame(examples).set_index("language")


def token_lengths(corpus: ParallelCorpus) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tokens of every distinct training text (language, side, tokens), and by language the mean
    length of each side and the share of unknown tokens; of a sample where rows are many."""
    from tokenizers import Tokenizer

    tokenizer, parts = Tokenizer.from_file(str(corpus.tokenizer_file)), []
    rows = corpus.rows
    if len(rows) > COUNTED:
        chosen = np.random.default_rng(0).permutation(len(rows))[:COUNTED]
        rows = rows.select(np.sort(chosen))
    rows = rows.to_pandas()
    for side in ("question", "passage"):
        texts = rows.loc[rows[side] != "", ["language", side]].drop_duplicates()
        ids = [code.ids for code in tokenizer.encode_batch(texts[side].tolist())]
        unknown = tokenizer.token_to_id("[UNK]")
        parts.append(
            pd.DataFrame(
                {
                    "language": texts["language"],
                    "side": f"{side}s",
                    "tokens": [len(x) for x in ids],
                    "unknown": [x.count(unknown) for x in ids],
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    means = table.pivot_table(index="language", columns="side", values="tokens").round(1)
    total = table.groupby("language")[["tokens", "unknown"]].sum()
    return table, means.assign(**{"unknown tokens": total["unknown"] / total["tokens"]})


def difficulty(scores: pd.DataFrame) -> pd.DataFrame:
    """mAP of the reference rankers by setting and stratum: stratum, ranker, mAP, questions."""
    scores = scores[scores["setting"].isin(["mono", "cross"])]
    mono, cross = (scores[scores["setting"] == s] for s in ("mono", "cross"))
    parts = {"mono": mono, "cross": cross}
    if "hops" in scores:
        parts = {
            f"mono, {hops}, {wording}": part
            for (hops, wording), part in mono.groupby(["hops", "wording"], observed=True)
        }
        parts |= {
            f"cross, {alike} names": part for alike, part in cross.groupby("names", observed=True)
        }
    rows = [
        {
            "stratum": stratum,
            "ranker": REFERENCES[ranker],
            "mAP": block["ap"].mean(),
            "questions": len(block),
        }
        for stratum, part in parts.items()
        for ranker, block in part.groupby("ranker", observed=True)
        if ranker != "oracle"
    ]
    return pd.DataFrame(rows)


def dropped(corpus: ParallelCorpus) -> pd.DataFrame:
    """Rows that text hygiene dropped, by reason and language; empty where it dropped none."""
    return pd.DataFrame(corpus.meta.get("dropped", {})).fillna(0).astype(int)


def different_names(corpus: ParallelCorpus) -> pd.DataFrame:
    """Language x language: share of test questions none of whose names are alike; empty where a
    corpus lists no names."""
    names = heldout.name_strata(corpus)
    keys = ["question_language", "candidate_language"]
    share = (names["names"] == "different").groupby([names[k] for k in keys], observed=True).mean()
    return share.unstack()


def findings(corpus: ParallelCorpus, audit: pd.DataFrame, hard: pd.DataFrame):
    """The notebook's last word, computed: what the corpus holds, leaks, and how hard it is."""
    from IPython.display import Markdown

    meta, counts = corpus.meta, corpus.meta["counts"]
    rows = audit[audit["part"] != "candidates"]
    leaked, shared = rows["normalised"].sum(), (rows["overlapping"] - rows["normalised"]).sum()
    why = ""
    if meta["source"] == "cldr":
        why = " (long wordings do, since a wording is used for many names)"
    best = hard.sort_values("mAP").groupby("stratum", sort=False).tail(1)
    hardest = best.sort_values("mAP").iloc[0]
    return Markdown(
        f"{sum(counts['rows'].values()):,} training rows in {len(corpus.languages)} languages, "
        f"{sum(counts['test'].values()):,} test questions over {sum(counts['pool'].values()):,} "
        f"passages ({meta['source']}, {meta['version']}; {meta['licence']}). "
        f"The leak audit found {leaked} test texts in training, and {shared} more that share a run "
        f"of 13 words with it{why}. "
        f"The stratum where words alone help least is *{hardest['stratum']}*: "
        f"the best ranker without training reaches an mAP of {hardest['mAP']:.3f} there."
    )


KNOBS = {
    "distractors": (0, 1, 3),
    "pool": (0, 400, 100),
    "drop_cells": (0.0, 0.2, 0.4),
    "keep": ({}, {"de": 0.5}, {"de": 0.1}),
}  # the first value changes nothing


def knobs(p: Prepare) -> pd.DataFrame:
    """What each knob of the embedded corpus does, on the first fold in two languages; empty for
    other folds, which would show the same, and other sources. Columns knob, value, BM25 (mAP of
    character n-grams, mono, all test questions), rows (training rows left, share) and length
    (mean characters of a passage)."""
    if p.source != "cldr" or p.fold:
        return pd.DataFrame()
    print("building the corpus with each knob at three values ...", flush=True)
    off = {knob: values[0] for knob, values in KNOBS.items()}
    plain = _effect(p.model_copy(update={"languages": ["de", "en"], **off}))
    rows = []
    for knob, values in KNOBS.items():
        for value in values:
            changed = {"languages": ["de", "en"], **off, knob: value}
            effect = plain if value == off[knob] else _effect(p.model_copy(update=changed))
            shown = value.get("de", 1.0) if knob == "keep" else value
            rows.append({"knob": knob, "value": shown, **effect})
    table = pd.DataFrame(rows)
    table["rows"] /= plain["rows"]
    return table


def _effect(p: Prepare) -> dict[str, float]:
    """The measures of `knobs` for one setting."""
    corpus = sources.module(p.source).build_corpus(p)
    benchmark = heldout.load_benchmark(corpus)
    ranks = references.reference_ranks(benchmark, "bm25_chars")
    scores = metrics.question_scores(benchmark, ranks)
    return {
        "BM25": scores.loc[scores["setting"] == "mono", "ap"].mean(),
        "rows": len(corpus.rows),
        "length": sum(map(len, corpus.pool["passage"][:])) / len(corpus.pool),
    }
