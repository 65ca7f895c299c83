"""The model card of a run, and its way to the Hugging Face hub.

A card is made when it is asked for, from what the run's stages left: the folder `model/` is sealed
when training ends, and evaluation comes later.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd

from lib import store
from lib.analysis import stats, sums
from lib.analysis.words import STRATEGIES, WITH_ALPHA
from lib.params import BadParameter
from lib.study import grid, paths, results
from lib.study.plan import shown

LEFT_OUT = ("manifest.json",)  # of `model/`: what it says of the run names paths of this machine
CARD = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
language:
{codes}
tags:
- sentence-transformers
- multilingual
- dense-retrieval
---

# {study}: {key}

An encoder of questions and passages, trained for multilingual retrieval by a study of how batches
are composed: which pairs are of one language, and which are of two.

## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{place}")
questions = model.encode(["..."], prompt_name="query")
passages = model.encode(["..."], prompt_name="document")
model.similarity(questions, passages)  # cosine
```

Texts are cut to {max_length} tokens; token states become one vector by {pooling}. {prompts}

## Training

| | |
|---|---|
| data | {data} |
| licence of the data | {licence} |
| languages | {languages} |
| began as | {start} |
| batches | {arm} |
| steps | {steps}, of {batch_size} pairs |
| learning rate, temperature | {learning_rate:g}, {temperature:g} |
| seed | {seed} |
| code | commit {commit} |

## Evaluation

{evaluation}

## Intended use and limits

For research on multilingual retrieval. It is one run of one seed: what another seed would change is
not in any interval here, and arms are compared in the study's report and not by single runs. Only
the languages above were trained on. Licences of the data, and of the checkpoint it began as if any,
hold for the weights too; this card names none for them.

## How to cite

The question is that of Elmahdy, Lin and Ahmad, *Synergistic Approach for Simultaneous Optimization
of Monolingual, Cross-lingual, and Multilingual Information Retrieval*, 2024
([arXiv 2408.10536](https://arxiv.org/abs/2408.10536)). The study is to be cited by its
`CITATION.cff`, with the commit above.
"""

MEANING = """mAP is mean average precision: 1 where every relevant passage comes first. In mono, a
question searches the passages of its own language; in cross, those of one other language; in multi,
those of all languages in one pool. Intervals are over clusters of questions alone, for this one
encoder.
"""


def card(study: str, key: str, place: str = "") -> str:
    """The card of a run in Markdown; place: where readers find the model.

    Raises BadParameter for a run that is not there, store.Damaged for one that was altered."""
    folder = _run(study, key)
    asked, made = (store.read_json(folder / f"{n}.json") for n in ("params", "provenance"))
    corpus = store.read_json(results.corpus_of(study, folder) / "data/manifest.json")
    languages, dirty = list(corpus["counts"]["rows"]), bool(made["dirty"])
    encoder = store.read_json(folder / "model/encoder.json")
    return CARD.format(
        **asked | encoder,
        key=key,
        place=place or shown(folder / "model"),
        prompts=_prompts(encoder),
        codes="\n".join(f"- {code}" for code in languages),
        languages=", ".join(languages),
        data=f"{corpus['source']}, {corpus.get('version', 'no version')}",
        licence=corpus.get("licence") or "not stated: ask whoever made the files",
        start=asked["model"] or f"new weights, layers {asked['layers']}, width {asked['width']}",
        arm=_arm(asked),
        commit=f"{made['commit'] or 'unknown'}{' with changes' * dirty}",
        evaluation=_evaluation(folder),
    )


def push(study: str, key: str, name: str) -> str:
    """Upload `model/` of a run with its card, as one commit of the private repository `name` on the
    Hugging Face hub, which is made if it is not there. Gives the commit's address.

    Raises BadParameter in one line for a bad name or run, and for what the hub refuses."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if len([part for part in name.split("/") if part]) != 2 or name.count("/") != 1:
        raise BadParameter(f"push: {name!r} is no name on the hub (expected owner/name)")
    text, model = card(study, key, name), _run(study, key) / "model"
    files = [path for path in sorted(model.rglob("*")) if path.is_file()]
    names = {path.relative_to(model).as_posix(): path for path in files}
    operations = [CommitOperationAdd(n, path) for n, path in names.items() if n not in LEFT_OUT]
    operations.append(CommitOperationAdd("README.md", text.encode()))
    hub, message = HfApi(), f"{study}: {key}"
    try:
        hub.create_repo(name, private=True, exist_ok=True)
        return hub.create_commit(name, operations, commit_message=message).commit_url
    except (HfHubHTTPError, LocalTokenNotFoundError, ValueError) as error:
        raise BadParameter(f"push: {name}: {str(error).splitlines()[0]}") from None


def _run(study: str, key: str) -> Path:
    """The folder of a run whose encoder is there and whole."""
    folder = paths.run_dir(study, key)
    if not (folder / "model/manifest.json").is_file():
        known = ", ".join(grid.keys(study)) or "none"
        raise BadParameter(f"study {study}: no trained run {key!r} (expected one of: {known})")
    if not any((folder / "model").glob("*.safetensors")):
        raise BadParameter(f"study {study}: run {key} was taken from a ledger, without its encoder")
    store.verify(folder / "model")
    return folder


def _prompts(encoder: dict) -> str:
    question, passage = encoder["question_prompt"], encoder["passage_prompt"]
    if not question and not passage:
        return "Texts have no prompts, so both names may be left out."
    return f"The prompts are {question!r} (query) and {passage!r} (document)."


def _arm(asked: dict) -> str:
    """How batches were composed, with the arms that this refers to."""
    strategy = asked["strategy"]
    what = STRATEGIES[strategy]
    others = [f"{name}: {STRATEGIES[name]}" for name in re.findall(r"\bas (?:in )?(\S+?)\b", what)]
    alpha = f", alpha {asked['alpha']:g}" if strategy in WITH_ALPHA else ""
    return "; ".join([f"{strategy}{alpha}: {what}", *others])


def _evaluation(folder: Path) -> str:
    """mAP by benchmark and setting, with the interval that one run has."""
    if not (folder / "metrics.json").is_file():
        return "Not evaluated."
    store.verify(folder / "sums")
    names = store.read_json(folder / "metrics.json")["benchmarks"]
    lines = ["| benchmark | setting | mAP | 95 % interval |", "|---|---|---|---|"]
    notes = []
    for name in names:
        table = pd.read_parquet(folder / "sums" / f"{name}.parquet")
        if "setting" not in table:
            continue
        rows = sums.headline(table[table["metric"] == "ap"])
        notes.append(f"{name}: {sums.stratum(table)}")
        for setting, own in rows.groupby("setting", sort=False, observed=True):
            found = _interval(own)
            text = f"{found.low:.3f} to {found.high:.3f}"
            text = "unknown: one cluster" if math.isnan(found.low) else text
            lines.append(f"| {name} | {setting} | {found.estimate:.3f} | {text} |")
    return "\n".join([*lines, "", MEANING, *notes])


def _interval(rows: pd.DataFrame) -> stats.Interval:
    """Mean over clusters of questions, of this one encoder. rows: group, total, weight."""
    sums = rows.groupby("group", observed=True)[["total", "weight"]].sum().astype("float64")
    cells = sums.assign(value=sums["total"] / sums["weight"], seed=0)
    cells = cells.rename_axis("cluster").reset_index()
    return stats.interval(cells, fixed=True).within(0, 1)
