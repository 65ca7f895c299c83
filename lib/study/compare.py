"""Any encoders on one benchmark, side by side, without a study.

Encoders are folders of transformers or sentence-transformers, commits of the hub, or runs of a
study; each is read with what it states of itself (pooling, prompts, length). Vectors are kept by
content, so that the second comparison of an encoder only searches. What is known of one encoder,
and what is not, is in lib.analysis.comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from safetensors import SafetensorError

from lib import benchmarks, metrics, search, store
from lib.analysis import agnostic as vectors_of
from lib.analysis import alts, bias, drawing, encoders, heatmaps, showing, stats, tables
from lib.analysis.comparison import Comparison, maps, sentences
from lib.benchmark import Benchmark
from lib.benchmarks import agnostic
from lib.checkpoint import COMMIT, loading
from lib.encoder import Encoder, pick_device
from lib.metrics import BIAS, LABELS, QUALITY
from lib.params import BadParameter, BenchmarkSpec, Train
from lib.sources import downloads
from lib.study import paths, report
from lib.study.evaluate import annotate
from lib.training import packaged, pretrained
from lib.training.models import build_encoder, load_encoder

BATCH = 64  # texts encoded at a time
# What decides a vector; a folder may hold much else.
DECIDES = (".json", ".safetensors", ".model", ".txt")
ON_THE_HUB = [*pretrained.FILES, "config.json", "*.safetensors", "*.safetensors.index.json",
              "tokenizer*", "special_tokens_map.json", "*.model", "*.txt"]  # fmt: skip
SETTINGS = (
    "mono: a question searches the passages of its own language; cross: those of one other "
    "language; multi: those of all languages in one pool. mAP: mean average precision, 1 where "
    "every relevant passage comes first. Brackets: 95 % intervals."
)
# Families of differences, each of which has sentences; the first stand on top of the page.
SAID = ("differences", "bias_differences", "agnostic_differences")
LIMITS = (
    "What this leaves out: each encoder is taken as it is. Intervals and tests are over clusters "
    "of questions alone, and say what other questions like these might have shown. They do not say "
    "what training again would change: the same recipe with another seed gives another encoder, "
    "which may differ by as much. So a verdict is about these weights and no recipe, arm or "
    "method; for those, a study trains several seeds. Nor does a benchmark know what an encoder "
    "was trained on: text that it has seen before is an advantage that no interval shows."
)


@dataclass(frozen=True)
class Named:
    """An encoder as it was asked for, and the folder that it is read from."""

    asked: str
    folder: Path

    @cached_property
    def content(self) -> str:
        """Hex sha256 of all files that decide a vector, by their names."""
        found = [f for f in store.files(self.folder) if f.suffix in DECIDES]
        names = {f.relative_to(self.folder).as_posix(): f for f in found}
        names.pop("manifest.json", None)
        return store.digest({name: store.sha256(file) for name, file in names.items()})

    def load(self) -> Encoder:
        """The encoder, as it is meant. Raises ValueError in one line."""
        if (self.folder / "encoder.json").is_file():
            return load_encoder(self.folder, code=False)
        name, length = str(self.folder), pretrained.longest(self.folder)
        if self.asked == packaged.NAME:  # with what its folder does not say
            name, length = self.asked, 0
        return build_encoder(Train(model=name, steps=0, max_length=length), Path())


def compare(names: Sequence[str], benchmark: str) -> Path:
    """Compare encoders on a benchmark: prints what was found, and gives the path of its page.

    names      folders, owner/name@commit, multilingual-e5-small, or STUDY:RUN; the others are
               compared with the first
    benchmark  xquad-r, mlqa-r, or a folder
    Raises BadParameter in one line for what cannot be compared."""
    found = _distinct([_named(name) for name in names])
    with _bad(f"benchmark {benchmark}"):
        asked = _benchmark(benchmark)
    key = store.digest([asked.digest, *(one.content for one in found.values())])[:8]
    folder = paths.outputs() / "compare" / f"{asked.name}-{key}"
    store.make_folder(folder.parent)  # where that cannot be, before minutes of encoding
    scores, measured, about = {}, {}, {}
    for label, one in found.items():
        scores[label], measured[label], about[label] = _scored(label, one, asked)
    result = Comparison(asked.name, scores, measured)
    words = _write(result, about, asked, folder)
    quality = result.quality()
    print(tables.wide(quality[quality["metric"] == "ap"], "setting").to_string())
    print("\n".join(words))
    return folder / "index.html"


@contextmanager
def _bad(what: str) -> Iterator[None]:
    """Makes what is wrong with an input a BadParameter of one line."""
    try:
        yield
    except BadParameter:
        raise
    except (ValueError, OSError, SafetensorError) as error:
        raise BadParameter(f"{what}: {' '.join(str(error).split())}") from None


# --- what is compared --------------------------------------------------------------------------


def _named(name: str) -> Named:
    """Where an encoder lies. Raises BadParameter."""
    if name == packaged.NAME:
        with _bad(f"encoder {name}"):
            return Named(name, packaged.folder())
    for folder in (Path(name), store.ROOT / name):
        if folder.is_dir():
            inside = folder / "model"
            return Named(name, (inside if inside.is_dir() else folder).resolve())
    hub, _, revision = name.partition("@")
    if COMMIT.fullmatch(revision):
        return Named(name, _from_hub(hub, revision))
    study, colon, run = name.partition(":")
    if colon and paths.study_dir(study).is_dir():
        with _bad(f"encoder {name}"):
            return Named(name, paths.needs(paths.run_dir(study, run) / "model", "02_train"))
    raise BadParameter(
        f"encoder {name}: is not there (expected a folder, a model of the Hugging Face hub as "
        "owner/name@commit with 40 hex digits, or STUDY:RUN)"
    )


def _from_hub(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    with _bad(f"encoder {name}@{revision}"), loading(name):
        return Path(snapshot_download(name, revision=revision, allow_patterns=ON_THE_HUB))


def _distinct(found: list[Named]) -> dict[str, Named]:
    """Short name -> encoder. Raises BadParameter for fewer than two, and for one that stands twice,
    under whatever names."""
    if len(found) < 2:
        raise BadParameter(f"compare: {len(found)} encoder(s) named (expected two or more)")
    seen: dict[str, str] = {}
    for one in found:
        if other := seen.setdefault(one.content, ""):
            raise BadParameter(
                f"encoder {one.asked}: is the same as {other} (expected each once; no difference "
                "is to be found)"
            )
        seen[one.content] = one.asked
    return dict(zip(_short([one.asked for one in found]), found, strict=True))


def _short(names: list[str]) -> list[str]:
    """The ends of names, as long as it takes to tell them apart: `e5-small` of
    `intfloat/e5-small@0a1b...`."""
    plain = [name if Path(name).is_dir() else name.partition("@")[0] for name in names]
    parts = [[x for x in name.split("/") if x not in ("", ".", "model")] for name in plain]
    for length in range(1, max(map(len, parts), default=0) + 1):
        ends = ["/".join(x[-length:]) for x in parts]
        if len({*ends}) == len(ends):
            return ends
    return names


def _benchmark(name: str) -> Benchmark:
    """The benchmark of a public name or a folder. Raises ValueError."""
    splits = benchmarks.module("lareqa").FORMAT.splits
    folder = next((f for f in (Path(name), store.ROOT / name) if f.is_dir()), None)
    if folder is not None:
        spec = _spec(str(folder.resolve()))
    elif name in splits:
        spec = BenchmarkSpec(format="lareqa", split=name)
    else:
        raise ValueError(f"is unknown (expected {', '.join(splits)}, or a folder)")
    plain = Path(name).resolve().name if folder else name
    benchmark = benchmarks.module(spec.format).load_benchmark(plain, spec)
    if (clusters := benchmark.questions["group"].nunique()) < 2:
        raise ValueError(f"its questions are {clusters} cluster (expected two or more)")
    if len(benchmark.languages) < 2:
        raise ValueError(f"is in {benchmark.languages[0]} alone (expected two languages or more)")
    return benchmark


def _spec(folder: str) -> BenchmarkSpec:
    """The format whose files a folder holds. Raises ValueError, saying what each lacks."""
    lacks = {}
    for format in benchmarks.names():
        kind = benchmarks.module(format).FORMAT
        if kind.of_corpus or not kind.in_memory:
            continue
        spec = BenchmarkSpec(format=format, folder=folder)
        try:
            benchmarks.look(spec)
        except ValueError as error:
            lacks[format] = str(error).removeprefix(folder).lstrip(":/ ")
        else:
            return spec
    reasons = "; ".join(f"{format}: {reason}" for format, reason in lacks.items())
    raise ValueError(f"is of no format that can be compared on ({reasons})")


# --- vectors and scores ------------------------------------------------------------------------


def _scored(
    label: str, named: Named, benchmark: Benchmark
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Per-question scores of an encoder, what its vectors say of languages, and what it is."""
    with _bad(f"encoder {named.asked}"):
        encoder = named.load().to(pick_device("auto"))
    print(f"{label}: searching ...", flush=True)
    sides = {"question": benchmark.questions, "passage": benchmark.candidates}
    vectors = {kind: _vectors(encoder, named, list(t["text"]), kind) for kind, t in sides.items()}
    scores = _of_vectors(benchmark, *vectors.values())
    measured = agnostic.measures(benchmark, vectors["passage"])
    about = {"encoder": named.asked, "content": named.content, "width": encoder.width}
    return annotate(scores, benchmark, None), measured, about | asdict(encoder.settings)


def _of_vectors(benchmark: Benchmark, *vectors: np.ndarray) -> pd.DataFrame:
    """Scores of lib.metrics.question_scores, with the columns of FIELD, AGNOSTIC and BITEXT."""
    tops, aligned = [], []
    scored = bias.noting_alignment(search.tiles(*vectors), benchmark, aligned)
    ranks = search.relevant_ranks(bias.noting_tops(scored, tops), benchmark)
    scores = metrics.question_scores(benchmark, ranks)
    scores = bias.with_alignment(scores, benchmark, ranks, aligned)
    scores = bias.with_field(scores, benchmark, ranks, tops, vectors)
    found = agnostic.bitext(benchmark, vectors[0]).assign(setting="cross")
    keys = ["setting", "question", *metrics.CELL]
    found = found.astype({x: scores[x].dtype for x in keys})
    return scores.merge(found, "left", keys)


def _vectors(encoder: Encoder, named: Named, texts: list[str], kind: str) -> np.ndarray:
    """Unit vectors float32 [n, d] of texts, kept by all that decides them."""
    made_from = {
        "encoder": named.content,
        "settings": asdict(encoder.settings),
        "texts": store.digest(texts),
        "kind": kind,
        "batch": BATCH,
        "device": encoder.device.type,
        "torch": metadata.version("torch"),
        "transformers": metadata.version("transformers"),
    }
    folder = downloads.cache_dir() / "vectors" / store.digest(made_from)[:40]

    def make() -> None:
        print(f"encoding {len(texts):,} texts of the kind {kind} ...", flush=True)
        with store.atomic_folder(folder, {"made_from": made_from}) as new:
            np.save(new / "vectors.npy", encoder.encode(texts, kind, BATCH))

    store.made(partial(store.verify, folder, made_from), make, alone=folder.parent)
    return np.load(folder / "vectors.npy", allow_pickle=False)


# --- what is written ---------------------------------------------------------------------------


def _write(result: Comparison, about: dict, benchmark: Benchmark, folder: Path) -> list[str]:
    """The folder of a comparison: page, figures, tables, per-question scores, what was compared.
    A sentence for each difference."""
    made = {
        "quality": result.quality(),
        "differences": result.differences(),
        "bias": result.bias(),
        "bias_differences": result.bias_differences(),
        "by_pair": result.by_pair(),
        "agnostic": result.agnostic(),
        "agnostic_differences": result.agnostic_differences(),
        "vectors": result.vectors(),
    }
    facts = {"benchmark": benchmark.name, "digest": benchmark.digest, "encoders": about}
    title = f"{', '.join(result.names)} on {benchmark.name}"
    for number, (name, scores) in enumerate(result.scores.items()):
        with store.atomic_file(folder / "scores" / f"{number}.parquet") as file:
            scores.assign(encoder=name).astype({"encoder": "category"}).to_parquet(file)
    tables.save(made, folder / "tables", {})
    words = [sentences(made[name]) for name in SAID]
    store.write_json(folder / "comparison.json", facts | {"sentences": sum(words, [])})
    template = Environment(loader=FileSystemLoader(report.TEMPLATES), autoescape=True).get_template(
        "compare.html.j2"
    )
    parts = {k: Markup(report.dressed(v)) for k, v in _parts(result, made, facts, folder).items()}
    page = template.render(
        title=title,
        sentences=words[0],
        settings=SETTINGS,
        limits=LIMITS,
        parts=parts,
        **report.frame(),
    )
    with store.atomic_file(folder / "index.html") as file:
        file.write_text(page, encoding="utf-8")
    return sum(words, [])


def _parts(
    result: Comparison, made: dict[str, pd.DataFrame], facts: dict, folder: Path
) -> dict[str, str]:
    """Heading -> HTML; empty where there is nothing to show."""
    drawing.style()
    figures = folder / "figures"
    quality, ranked = made["quality"], made["quality"].query("metric == 'ap'")
    others = quality[quality["metric"].isin(["r1", "r10", "ndcg10"])]
    unit = "mean over languages or pairs of languages, with the 95 % interval over clusters"
    shown = {
        "Quality": [
            showing.show(tables.wide(ranked, "setting"), f"mAP, {unit}.", "quality"),
            drawing.show(encoders.plane(result.plane()), figures),
        ],
        "Differences": [
            drawing.show(encoders.differences(made["differences"]), figures),
            showing.show(readable(made["differences"]), DIFFERENCES, "differences"),
        ],
        "By pair of languages": [
            drawing.show(heatmaps.differences(maps(made["by_pair"]), about=TITLED), figures),
            _link("by_pair", made),
        ],
        "Language bias": [
            *_biases(made["bias"], unit),
            _listed(made["bias_differences"]),
            showing.show(readable(made["bias_differences"]), FAMILY, "bias_differences"),
        ],
        "Language-agnosticism": _alignment(made, unit),
        "Other measures": [
            showing.show(tables.wide(part, "setting"), f"{LABELS[metric]}, {unit}.")
            for metric, part in others.groupby("metric", sort=False)
        ],
        "What was compared": [showing.show(_described(facts), _questions(result, facts))],
    }
    texts = {k: [x.data for x in v if x is not showing.NOTHING and x] for k, v in shown.items()}
    return {heading: "".join(found) for heading, found in texts.items()}


DIFFERENCES = (
    "Each encoder minus the first, question by question, with its 95 % interval. Detectable: the "
    "true difference that is found four times in five. p (Holm): adjusted for all rows."
)
FAMILY = "Each minus the first, as above, in these measures, which are a family of their own."
AS_OTHERS = (
    "As other papers measure it. Own language first: how often the best ranked relevant passage is "
    "in the question's language. TLR@20: recall of those in other languages. MRC@10: how alike "
    "translations of a question order the top. PEER: p value of equal ranks in all languages; it "
    "has none where a language has one relevant passage."
)
ALIGNED = (
    "Bitext accuracy: how often a question is nearest to its translation among up to "
    f"{agnostic.QUESTIONS} questions of that language. Strong alignment: how often every relevant "
    "passage in another language, or each of them, outscores all irrelevant ones in the question's "
    "own. Top 10 / pool: the share of the question's language there, over its share of the pool."
)
VECTORS = (
    "What vectors of passages say of their language: how often a linear probe tells it, and which "
    "share of their variance lies between languages, also over what labels dealt out at random "
    "give. In brackets the difference from the first encoder. One value of a whole encoder, which "
    "no cluster of questions repeats, so there are no intervals and no verdicts."
)
TITLED = "A map an encoder; intervals and adjusted p values of each pair are in by_pair.csv."


OWN = (
    "Over the pool of all. Rank distance: worst minus best rank of a question's parallel passages, "
    "also over what a random order gives. Max@R: how far down one has to read to have all of them. "
    "Own-language advantage: mean log rank of the others minus that of the own language; above 0, "
    "a question finds the passages of its own language first."
)


def _biases(table: pd.DataFrame, unit: str) -> list[Any]:
    """Language bias as this study measures it, and as other papers do."""
    if not len(table):
        return []
    own = table["metric"].isin(BIAS)
    return [
        showing.show(tables.biases(table[own]), f"{OWN} {unit.capitalize()}.", "bias"),
        showing.show(tables.biases(table[~own]), f"{AS_OTHERS} {unit.capitalize()}.", "field"),
    ]


def _alignment(made: dict[str, pd.DataFrame], unit: str) -> list[Any]:
    """Language-agnosticism, of questions and of vectors."""
    own = tables.biases(made["agnostic"])
    return [
        showing.show(own, f"{ALIGNED} {unit.capitalize()}.", "agnostic"),
        _listed(made["agnostic_differences"]),
        showing.show(readable(made["agnostic_differences"]), FAMILY, "agnostic_differences"),
        showing.show(vectors_of.against_first(made["vectors"]), VECTORS, "vectors"),
    ]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Differences from the first encoder for people to read, a row each."""
    rows = []
    for row in table.itertuples():
        form = f".{tables.DIGITS.get(row.metric, 3)}f"
        rows.append(
            {
                "encoder": row.arm,
                "in": f"{row.setting} " * (row.metric in QUALITY) + tables.NAMES[row.metric],
                "minus the first": stats.signed(row.difference, row.low, row.high, f"+{form}"),
                "detectable": f"{row.detectable:{form}}",
                "p (Holm)": alts.p_value(row.p_holm).removeprefix("p = ").removeprefix("p "),
                "verdict": row.verdict,
            }
        )
    return pd.DataFrame(rows)


def _listed(table: pd.DataFrame) -> HTML:
    """Differences as sentences."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences(table))
    return HTML(f"<ul>{items}</ul>" * bool(items))


def _link(name: str, made: dict[str, pd.DataFrame]) -> HTML:
    """A link to a table that is not shown."""
    link = f'<p class="files"><a href="tables/{name}.csv">{name}.csv</a></p>'
    return HTML(link * bool(len(made[name])))


def _described(facts: dict) -> pd.DataFrame:
    """What each encoder is, a row each."""
    rows = []
    for about in facts["encoders"].values():
        prompts = [about[f"{side}_prompt"] for side in ("question", "passage")]
        rows.append(
            {
                "encoder": about["encoder"],
                "pooling": about["pooling"],
                "prompts": " and ".join(map(repr, prompts)) if any(prompts) else "none",
                "tokens at most": about["max_length"],
                "width": about["width"],
                "content": about["content"][:12],
            }
        )
    return pd.DataFrame(rows, index=list(facts["encoders"]))


def _questions(result: Comparison, facts: dict) -> str:
    """How much was asked, in a sentence."""
    row = result.differences().iloc[0]
    table = next(iter(result.scores.values()))
    languages = sorted({*table["question_language"].astype(str)})
    asked = table[["question_id", "question_language"]].drop_duplicates()
    return (
        f"{facts['benchmark']}: {len(asked):,} questions in {row['clusters']} clusters, languages "
        f"{' '.join(languages)}; content {facts['digest'][:12]}."
    )
