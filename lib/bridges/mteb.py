"""Our encoders on mteb's tasks, and our benchmarks as mteb tasks.

mteb is where multilingual encoders are compared, so its figures for an encoder of ours must be its
own: its data, its search, its scores, written in its own result files, which can be compared with
published ones or submitted. Nothing is computed here but the vectors.

    python -m lib.bridges.mteb outputs/quick/runs/arm=mono,seed=0/model XQuADRetrieval Tatoeba
    python -m lib.bridges.mteb outputs/quick/runs/arm=mono,seed=0/model heldout
    python -m lib.bridges.mteb MODEL_FOLDER "MTEB(Multilingual, v2)" --out FOLDER

A name is a task's or a benchmark's of mteb, or that of a benchmark which the run was evaluated on,
as a task of mteb (`custom_task`). Data sets come from the Hugging Face hub at the revision that
mteb pins, and stay in its cache; with HF_HUB_OFFLINE=1 nothing but that cache is asked. A run that
was stopped goes on after its last complete subset. `mteb` alone takes seconds to import: it is
imported where it is used.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lib import store
from lib.benchmark import Benchmark

if TYPE_CHECKING:
    import torch
    from mteb.abstasks import AbsTask
    from numpy.typing import ArrayLike
    from torch.utils.data import DataLoader

    from lib.encoder import Encoder

COLUMNS = ["task", "subset", "languages", "split", "metric", "value"]
ALL = "multi"  # stands for a candidate language where the pool holds all languages


class Unavailable(ValueError):
    """A data set that mteb cannot load."""


class Incomplete(ValueError):
    """Some tasks could not be run, one line each; `scores` is the table of the others."""

    def __init__(self, lines: list[str], scores: pd.DataFrame):
        super().__init__("\n".join(lines))
        self.scores = scores


class MtebEncoder:
    """An Encoder as mteb's `EncoderProtocol`.

    Queries get the question prompt and documents the passage prompt. Where mteb does not tell two
    kinds of text apart (prompt_type None: bitext mining, classification, ...), every text is a
    question: parallel sentences are then compared under one prompt."""

    def __init__(self, encoder: Encoder, name: str, languages: Sequence[str] = ()):
        """name: "owner/model", as mteb wants it; languages: codes of lib.languages, if known."""
        self.encoder = encoder
        self.mteb_model_meta = _model_meta(encoder, name, languages)

    def encode(
        self, inputs: DataLoader, *, prompt_type: str | None = None, batch_size: int = 256, **_
    ) -> np.ndarray:
        """Unit vectors float32 [n, d] of all batch["text"] of a DataLoader, in its order."""
        texts = [text for batch in inputs for text in batch["text"]]
        kind = "passage" if prompt_type == "document" else "question"
        return self.encoder.encode(texts, kind, batch_size)

    def similarity(self, a: ArrayLike, b: ArrayLike) -> torch.Tensor:
        """Cosines [n, m] of unit vectors [n, d] and [m, d] (arrays or tensors)."""
        import torch

        return torch.as_tensor(a) @ torch.as_tensor(b).T

    def similarity_pairwise(self, a: ArrayLike, b: ArrayLike) -> torch.Tensor:
        """Cosines [n] of unit vectors, row by row."""
        import torch

        return (torch.as_tensor(a) * torch.as_tensor(b)).sum(-1)


def _model_meta(encoder: Encoder, name: str, languages: Sequence[str]):
    """What mteb keeps about a model beside its results. Raises ValueError for a bad name."""
    from mteb.models import ModelMeta

    if len([part for part in name.split("/") if part]) != 2:
        raise ValueError(f"model name is {name!r}, expected owner/model")
    size = sum(weights.numel() for weights in encoder.parameters())
    settings = encoder.settings
    return ModelMeta(
        loader=None,
        name=name,
        revision=revision(encoder),
        release_date=None,
        languages=[mteb_language(code) for code in languages] or None,
        n_parameters=size,
        n_embedding_parameters=encoder.model.get_input_embeddings().weight.numel(),
        memory_usage_mb=round(size * 4 / 2**20, 1),
        max_tokens=settings.max_length,
        embed_dim=encoder.width,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch", "Transformers"],
        similarity_fn_name="cosine",
        use_instructions=bool(settings.question_prompt or settings.passage_prompt),
        training_datasets=None,
    )


def revision(encoder: Encoder) -> str:
    """40 hex digits that stand for all that decides a vector: weights, tokenizer and settings.

    mteb files results under it, so results of other weights or prompts are never taken for these.
    """
    import torch

    digest = sha256()
    for name, weights in (
        *sorted(encoder.model.state_dict().items()),
        *encoder.dense.state_dict().items(),
    ):
        digest.update(f"{name} {weights.dtype} {list(weights.shape)}".encode())
        digest.update(weights.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    digest.update(encoder.tokenizer.backend_tokenizer.to_str().encode())
    digest.update(repr(encoder.settings).encode())
    return digest.hexdigest()[:40]


def mteb_language(code: str) -> str:
    """A code of lib.languages as mteb writes it, ISO 639-3 and script: `zh-Hant` is `zho-Hant`.

    Raises ValueError for a language that mteb does not know."""
    from babel.core import get_global
    from mteb.languages import ISO_TO_LANGUAGE

    language, *rest = code.split("-")
    aliases = get_global("language_aliases")
    codes = [iso for iso in ISO_TO_LANGUAGE if aliases.get(iso, iso) == language]
    if not codes:
        raise ValueError(f"mteb knows no language {code!r}")
    likely = get_global("likely_subtags").get(language, "").split("_")
    script = next((part for part in (*rest, *likely) if len(part) == 4), "Latn")
    script = {"Kore": "Hang"}.get(script, script)  # mteb's name of Korean's
    # A language and its main variety share a code: Chinese (zho) and Mandarin Chinese (cmn).
    return f"{min(codes, key=lambda iso: len(ISO_TO_LANGUAGE[iso]))}-{script}"


# --- running -----------------------------------------------------------------------------------


def run(
    encoder: Encoder,
    tasks: Sequence[str | AbsTask],
    folder: Path,
    name: str = "local/encoder",
    languages: Sequence[str] = (),
    batch_size: int = 256,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Every score of every task, one a row: task, subset, languages, split, metric, value.

    tasks   names of tasks or benchmarks, or mteb tasks (`custom_task`, or filtered ones)
    folder  mteb's result cache: results/<model>/<revision>/<task>.json and model_meta.json; what
            is there already is not computed again
    name    owner/model that the results are filed under

    Languages are joined by a blank; "main_score" repeats the task's main metric. `say` hears it of
    each task that is done. Raises ValueError for a name that does not exist or a task that is not
    of text alone, before any is run, and Incomplete at the end if data could not be loaded."""
    from mteb import ResultCache

    from lib.training.frozen import whole

    chosen, tables, missing = [task for entry in tasks for task in _tasks(entry)], [], []
    with store.locked(folder, say), whole(encoder):  # nobody wants millions of states kept
        model = MtebEncoder(encoder, name, languages)
        for task in chosen:
            try:
                result = _evaluate(model, task, ResultCache(folder), batch_size)
            except Unavailable as problem:
                missing.append(str(problem))
                say(str(problem))
                continue
            tables.append(_scores(result, task))
            say(f"{result.task_name}: {result.get_score():.4f}")
    scores = pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)
    scores = scores.drop_duplicates(COLUMNS[:-1], ignore_index=True)
    if missing:
        raise Incomplete(missing, scores)
    return scores


def _tasks(entry: str | AbsTask) -> list[AbsTask]:
    """The task of a name, or the tasks of a benchmark's name. Raises ValueError."""
    import mteb

    if not isinstance(entry, str):
        tasks = [entry]
    else:
        try:
            tasks = [mteb.get_task(entry)]
        except KeyError:
            try:
                tasks = list(mteb.get_benchmark(entry).tasks)
            except KeyError:
                raise ValueError(_unknown(entry)) from None
    for task in tasks:
        if task.modalities != ["text"]:
            what = ", ".join(task.modalities)
            raise ValueError(f"task {task.metadata.name!r} is of {what}, expected text alone")
    return tasks


def _unknown(name: str) -> str:
    import mteb

    tasks = mteb.get_tasks(exclude_superseded=False, exclude_private=False)
    names = [task.metadata.name for task in tasks] + [b.name for b in mteb.get_benchmarks()]
    near = difflib.get_close_matches(name, names)
    hint = f"did you mean {' or '.join(near)}?" if near else "and none with a similar name"
    return f"mteb has no task or benchmark {name!r} ({hint})"


def _evaluate(model: MtebEncoder, task: AbsTask, cache, batch_size: int):
    """mteb's TaskResult, made or found in the cache. Raises Unavailable where data is missing.

    Always read from the file, whose scores are rounded: a run and its repetition say the same."""
    import mteb

    for part in task.metadata.tasks if task.is_aggregate else ():
        _evaluate(model, part, cache, batch_size)  # alone, so that the one at fault is known
    name, meta, again = task.metadata.name, model.mteb_model_meta, False
    file = cache.get_task_result_path(name, meta)
    if file.exists():  # mteb writes in place: a killed run may leave half a file
        data = store.read_json(file).get("dataset_revision")
        again = not task.is_aggregate and data != task.metadata.dataset["revision"]
    try:
        mteb.evaluate(
            model,
            task,
            cache=cache,
            overwrite_strategy="always" if again else "only-missing",
            encode_kwargs={"batch_size": batch_size, "show_progress_bar": False},
            show_progress_bar=False,
            co2_tracker=False,
            public_only=False,  # an error for private data sets too, not an empty result
        )
    except Exception as error:
        if task.is_aggregate or task.data_loaded:
            raise
        raise Unavailable(_not_loaded(task, error)) from error
    return cache.load_task_result(name, meta)


def _not_loaded(task: AbsTask, error: Exception) -> str:
    data = task.metadata.dataset
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"task {task.metadata.name!r}: data set {data['path']} at revision {data['revision']} "
        f"cannot be loaded: {first}"
    )


def _scores(result, task: AbsTask) -> pd.DataFrame:
    """The table of one TaskResult: of the splits and subsets that the task asks for."""
    rows = [
        (result.task_name, subset["hf_subset"], " ".join(subset["languages"]), split, metric, value)
        for split, subsets in result.validate_and_filter_scores(task).scores.items()
        for subset in subsets
        for metric, value in subset.items()
        if isinstance(value, int | float)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


# --- our benchmarks in mteb --------------------------------------------------------------------


def custom_task(benchmark: Benchmark) -> AbsTask:
    """An mteb retrieval task over any of our benchmarks, split "test", nothing downloaded.

    Subset `de-en` asks in German over the English pool (`de-de`: mono), `de-multi` in German over
    all languages' pool. Every subset encodes its own texts: with L languages each text L + 1 times;
    `task.filter_languages(None, hf_subsets=[...])` leaves some out. mteb cuts rankings at 1,000
    and breaks ties by id, not as lib.metrics does. The revision is a hash of the content, so
    results of other data are never reused. Raises ValueError for grades that are not whole."""
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    relevant = _relevant(benchmark)
    code = {language: mteb_language(language) for language in benchmark.languages}

    class Custom(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=benchmark.name,
            description=f"{len(benchmark.questions)} questions, {len(benchmark.candidates)} "
            f"candidates in {len(benchmark.languages)} languages",
            type="Retrieval",
            category="t2t",
            eval_splits=["test"],
            eval_langs={
                f"{a}-{b}": list(code.values()) if b == ALL else list({code[a]: 0, code[b]: 0})
                for a, b in relevant
            },
            main_score="ndcg_at_10",
            dataset={"path": f"local/{benchmark.name}", "revision": benchmark.digest},
        )

        def load_data(self, **_):
            self.dataset = _dataset(benchmark, relevant)
            self.data_loaded = True

    return Custom()


def _relevant(benchmark: Benchmark) -> dict[tuple[str, str], dict[str, dict[str, int]]]:
    """(question language, pool) -> question id -> candidate id -> grade; ids are row numbers."""
    if (broken := benchmark.grade % 1 != 0).any():
        grade = benchmark.grade[broken.argmax()]
        raise ValueError(
            f"benchmark {benchmark.name!r}: relevant pair {broken.argmax()} has grade {grade:g}, "
            "expected a whole number (mteb knows no other)"
        )
    question_language, candidate_language = (
        t["language"].tolist() for t in (benchmark.questions, benchmark.candidates)
    )
    grades = defaultdict(lambda: defaultdict(dict))
    pairs = (benchmark.question, benchmark.candidate, benchmark.grade)
    for question, candidate, grade in zip(*(x.tolist() for x in pairs), strict=True):
        for pool in (candidate_language[candidate], ALL):
            grades[question_language[question], pool][f"q{question}"][f"c{candidate}"] = int(grade)
    return {key: dict(grades[key]) for key in sorted(grades)}


def _dataset(benchmark: Benchmark, relevant) -> dict:
    """subset -> split -> mteb's RetrievalSplitData; pools are shared between subsets."""
    questions = _by_language(benchmark.questions, "q")
    pools = _by_language(benchmark.candidates, "c")
    return {
        f"{a}-{b}": {
            "test": {
                "queries": questions[a],
                "corpus": pools[b],
                "relevant_docs": grades,
                "top_ranked": None,
            }
        }
        for (a, b), grades in relevant.items()
    }


def _by_language(table: pd.DataFrame, letter: str) -> dict:
    """Language (or ALL) -> datasets.Dataset of id and text."""
    from datasets import Dataset

    texts = pd.DataFrame(
        {"id": [f"{letter}{row}" for row in range(len(table))], "text": table["text"].to_list()}
    )
    parts = dict(iter(texts.groupby(table["language"].to_numpy())))
    return {
        language: Dataset.from_pandas(part, preserve_index=False)
        for language, part in (parts | {ALL: texts}).items()
    }


# --- the command -------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """The command line at the top of this module: 1 if data sets are missing, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m lib.bridges.mteb", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", type=Path, help="a saved encoder: outputs/STUDY/runs/KEY/model")
    parser.add_argument(
        "tasks",
        nargs="+",
        metavar="TASK",
        help="name of an mteb task, benchmark, or of the run's own",
    )
    parser.add_argument("--out", type=Path, help="where results go (mteb, beside the model)")
    parser.add_argument("--name", help="owner/model in the results (STUDY/KEY)")
    options = parser.parse_args(arguments)
    try:
        scores = _obey(options)
    except Incomplete as problem:  # its lines were said already
        _show(problem.scores)
        return 1
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    _show(scores)
    return 0


def _obey(options: argparse.Namespace) -> pd.DataFrame:
    from lib.encoder import pick_device
    from lib.training.models import load_encoder

    encoder = load_encoder(options.model, code=False).to(pick_device("auto"))
    folder = options.out or options.model.resolve().parent / "mteb"
    own = _own_benchmarks(options.model.resolve().parent)
    return run(
        encoder,
        [own[name]() if name in own else name for name in options.tasks],
        folder,
        name=options.name or _name(options.model),
        say=lambda line: print(line, file=sys.stderr),
    )


def _own_benchmarks(run_folder: Path) -> dict[str, Callable[[], AbsTask]]:
    """What makes a task of each benchmark in memory that a run was evaluated on, by its name; none
    for a folder that is no run's."""
    from lib import benchmarks
    from lib.corpus import ParallelCorpus
    from lib.params import BenchmarkSpec

    files = [run_folder / name for name in ("metrics.json", "params.json")]
    if not all(file.is_file() for file in files):
        return {}
    scores, params = map(store.read_json, files)
    corpus = run_folder.parents[1] / "corpus" / params["corpus"] / "data"

    def task(name: str, spec: BenchmarkSpec) -> AbsTask:
        if spec.prompt:
            raise ValueError(f"benchmark {name!r}: has a prompt, for which mteb has no place")
        made = benchmarks.load_benchmark(name, spec, ParallelCorpus.load(corpus))
        return custom_task(replace(made, name=name))  # of two of one format each has its results

    specs = {name: BenchmarkSpec(**spec) for name, spec in scores["benchmarks"].items()}
    kept = {n: s for n, s in specs.items() if benchmarks.format_of(s).in_memory}
    return {name: partial(task, name, spec) for name, spec in kept.items()}


def _name(folder: Path) -> str:
    """STUDY/KEY of outputs/STUDY/runs/KEY/model; of any other folder local/FOLDER."""
    parts = folder.resolve().parts
    if len(parts) > 3 and parts[-1] == "model" and parts[-3] == "runs":
        return f"{parts[-4]}/{parts[-2]}"
    return f"local/{parts[-1]}"


def _show(scores: pd.DataFrame) -> None:
    """Print the main scores, a line each."""
    for row in scores[scores["metric"] == "main_score"].itertuples():
        print(f"{row.task} {row.subset} {row.split}: {row.value:.4f}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
