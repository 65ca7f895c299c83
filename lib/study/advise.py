"""What the law says of an encoder and pairs of one's own, before anything is trained.

`python -m lib.study advise params/mine.yaml` prepares the study's pairs, measures how well its
encoder aligns their languages (bitext accuracy on held-out passages, the benchmark `parallel`), and
prints what hybrid(0.5) and cross would cost and gain against mono, and which alpha is best for
what. The law is fitted anew to all encoders that the project keeps results of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from lib import metrics, search, store
from lib.analysis import law, stats, sums
from lib.analysis.results import Results
from lib.analysis.stats import Interval
from lib.benchmark import Benchmark
from lib.benchmarks import parallel
from lib.corpus import ParallelCorpus
from lib.encoder import Encoder
from lib.params import BadParameter, Train
from lib.store import ROOT
from lib.study import grid, paths, rungs
from lib.study.evaluate import annotate
from lib.study.prepare import prepare
from lib.training import maps
from lib.training.models import build_encoder

POINTS = ROOT / "outputs" / "reference" / "law" / "tables" / "everything.csv"
# alpha -> contrast with mono in a setting; alpha 1 is mono itself.
BY_ALPHA = {
    "mono": {0.0: "mono cost of cross", 0.5: "mono cost"},
    "cross": {0.0: "cross gain of cross", 0.5: "cross gain"},
    "multi": {0.0: "multi gain of cross", 0.5: "multi gain"},
}
NEEDS = {
    "mono": "questions and passages in the same language",
    "cross": "passages in another language",
    "multi": "one pool of all languages",
}
LIMITS = (
    "What this rests on: small encoders from scratch, aligned by translation ranking, and "
    "multilingual-e5-small, as it is and rotated; fine-tuned on SQuAD's pairs in eight languages, "
    "asked XQuAD-R. docs/law.md says how an earlier fit did on encoders it had not seen. It "
    "knows nothing of large pools with hard negatives in one language, of languages without "
    "training pairs, or of how long you train."
)


@dataclass(frozen=True)
class Advice:
    """alignment: bitext accuracy, its interval from clusters of passages; passages: how many;
    rungs: least and largest alignment that the law was fitted to; table: setting, alpha, estimate,
    low, high, the difference in mAP to mono (90 % intervals)."""

    alignment: Interval
    passages: int
    rungs: tuple[float, float]
    table: pd.DataFrame

    def __str__(self) -> str:
        a = self.alignment
        lines = [
            f"alignment {a.estimate:.3f} {stats.shown(a.low, a.high)}: bitext accuracy on "
            f"{self.passages} held-out passages, before fine-tuning"
        ]
        if not self.rungs[0] <= a.estimate <= self.rungs[1]:
            low, high = self.rungs
            lines.append(f"(the law was fitted to {low:.2f} to {high:.2f}: this is beyond it)")
        for setting, own in self.table.groupby("setting", sort=False):
            lines.append(f"{NEEDS[setting]} ({setting}): mAP less that of mono, 90 % intervals")
            lines += [f"  {_row(row)}" for row in own.itertuples()]
            lines.append(f"  {best(own)}")
        return "\n".join([*lines, LIMITS])


def _row(row) -> str:
    name = {0.0: "cross", 0.5: "hybrid(0.5)"}[row.alpha]
    return f"alpha {row.alpha:g} ({name}): {stats.signed(row.estimate, row.low, row.high)}"


def best(own: pd.DataFrame) -> str:
    """Which alpha to take in a setting, by the estimates; and which others may be as good: those
    whose interval overlaps that of the best."""
    itself = {"alpha": 1.0, "estimate": 0.0, "low": 0.0, "high": 0.0}
    every = pd.concat([own, pd.DataFrame([itself])], ignore_index=True)
    top = every.loc[every["estimate"].idxmax()]
    near = every[(every["high"] >= top["low"]) & (every["alpha"] != top["alpha"])]
    others = " or ".join(f"{alpha:g}" for alpha in sorted(near["alpha"]))
    return f"best alpha: {top['alpha']:g}" + f" (not told apart: {others})" * bool(others)


def advise(path: str, changes: Iterable[str] = ()) -> Advice:
    """Measure and predict for the first trained run of a study file.

    Raises BadParameter where the study trains nothing, its pairs are refused, or no rungs are kept
    with the project."""
    study = grid.startable(path, changes)
    trained = [run.train for run in study.runs.values() if run.train.steps]
    if not trained:
        raise BadParameter(f"{path}: trains nothing (expected an arm that is to be trained)")
    points = _points()
    try:
        with store.locked(paths.corpus_dir(study.name, trained[0].corpus)):
            corpus = prepare(study.corpora[trained[0].corpus])
        benchmark = parallel.load_benchmark(corpus)
        aligned = alignment(_encoder(trained[0], corpus), benchmark, corpus)
    except ValueError as error:
        raise BadParameter(f"{path}: {error}") from None
    rows = []
    for setting, contrasts in BY_ALPHA.items():
        for alpha, contrast in contrasts.items():
            own = points[points["contrast"] == contrast]
            said = law.predicted(own, law.candidates(own)["law"][0], aligned.estimate)
            rows.append((setting, alpha, *said))
    table = pd.DataFrame(rows, columns=["setting", "alpha", "estimate", "low", "high"])
    known = points["alignment"].min(), points["alignment"].max()
    return Advice(aligned, benchmark.candidates["candidate_id"].nunique(), known, table)


def _points() -> pd.DataFrame:
    if not POINTS.is_file():
        raise BadParameter(f"{POINTS}: is not there (expected the rungs of the law, docs/law.md)")
    return pd.read_csv(POINTS)


def _encoder(train: Train, corpus: ParallelCorpus) -> Encoder:
    """As it is before the first step."""
    return build_encoder(train, corpus.tokenizer_file).eval()


def alignment(encoder: Encoder, benchmark: Benchmark, corpus: ParallelCorpus) -> Interval:
    """Bitext accuracy of one encoder, as lib.study.rungs has it of a study's."""
    sides = {"question": benchmark.questions, "passage": benchmark.candidates}
    vectors = [
        maps.of_texts(
            encoder, encoder.vectors(encoder.tokenize(list(t["text"]), kind)), t["language"]
        )
        for kind, t in sides.items()
    ]
    ranks = search.relevant_ranks(search.tiles(*vectors), benchmark)
    scores = annotate(metrics.question_scores(benchmark, ranks), benchmark, corpus)
    about = {"arm": "encoder", "seed": 0}
    found = Results(
        benchmark.name, [], sums.summed(scores).assign(**about),
        sums.language_cells(scores).assign(**about),
    )  # fmt: skip
    return rungs.alignment(found, "encoder", fixed=True)
