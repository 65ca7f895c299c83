"""mteb on our encoders: its protocol, its result files, and its figures against our own."""

import random
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lib import metrics, store
from lib.benchmark import Benchmark
from lib.bridges import mteb as ours
from lib.encoder import Encoder
from lib.params import Train
from lib.search import relevant_ranks, tiles
from lib.sources.assemble import corpus_of_rows
from lib.training import frozen
from lib.training.export import save_encoder
from lib.training.models import build_encoder, load_encoder
from lib.training.tokenizer import train_tokenizer

LANGUAGES = ("de", "en")
FACTS = 70
SYLLABLES = "ba ko li mu ne so ta ru vi xe fo pi".split()
SMALL = Train(width=24, max_length=24, question_prompt="ask ", passage_prompt="tell ")


def words(*key):
    """Two to twelve made-up words that depend on the key alone."""
    draw = random.Random(repr(key))
    return " ".join("".join(draw.choices(SYLLABLES, k=3)) for _ in range(draw.randint(2, 12)))


def made(languages=LANGUAGES, grade=2.0):
    """Each fact asked and answered in each language; the next fact's passage has half the gain."""
    keys = [(fact, language) for fact in range(FACTS) for language in languages]
    questions = pd.DataFrame(
        [(f"Q{f}", language, words("q", f, language), f"G{f}") for f, language in keys],
        columns=["question_id", "language", "text", "group"],
    )
    candidates = pd.DataFrame(
        [(f"P{f}", language, words("p", f, language)) for f, language in keys],
        columns=["candidate_id", "language", "text"],
    )
    rows = [
        (q, c, grade if keys[q][0] == keys[c][0] else 1.0)
        for q in range(len(keys))
        for c in range(len(keys))
        if (keys[c][0] - keys[q][0]) % FACTS in (0, 1)
    ]
    return Benchmark.from_pairs("local", questions, candidates, *map(list, zip(*rows, strict=True)))


def bitext():
    """An mteb bitext task over the made passages: German sentences and English ones."""
    from datasets import Dataset
    from mteb.abstasks import AbsTaskBitextMining
    from mteb.abstasks.task_metadata import TaskMetadata

    class Local(AbsTaskBitextMining):
        metadata = TaskMetadata(
            name="LocalBitext",
            description="made-up words",
            type="BitextMining",
            category="t2t",
            eval_langs={"de-en": ["deu-Latn", "eng-Latn"]},
            main_score="f1",
            dataset={"path": "local/bitext", "revision": "1"},
        )

        def load_data(self, **_):
            texts = {
                f"sentence{i}": [words("p", fact, x) for fact in range(FACTS)]
                for i, x in ((1, "de"), (2, "en"))
            }
            self.dataset = {"de-en": {"test": Dataset.from_dict(texts)}}
            self.data_loaded = True

    return Local()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A random encoder whose word vectors lie far apart, so that texts do too."""
    benchmark, file = made(), tmp_path_factory.mktemp("words") / "tokenizer.json"
    train_tokenizer([*benchmark.questions["text"], *benchmark.candidates["text"]], 200).save(
        str(file)
    )
    encoder = build_encoder(SMALL, file)
    with torch.no_grad():
        encoder.model.get_input_embeddings().weight.mul_(50)
    return encoder


@pytest.fixture(scope="module")
def result(encoder, tmp_path_factory):
    """(scores, folder) of a run of the retrieval and the bitext task."""
    folder = tmp_path_factory.mktemp("results")
    tasks = [ours.custom_task(made()), bitext()]
    scores = ours.run(encoder, tasks, folder, "study/key", LANGUAGES, say=lambda line: None)
    return scores, folder


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A machine that asks no hub and has nothing in its cache."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)


def values(scores, task):
    """Score by (subset, metric) of one task."""
    rows = scores[scores["task"] == task]
    return rows.set_index(["subset", "metric"])["value"]


def test_search_agrees_with_our_metrics(encoder, result):
    """nDCG@10 (graded) and recall@100 of mteb are those of lib.metrics, in every setting."""
    benchmark = made()
    vectors = [
        encoder.encode(benchmark.questions["text"], "question"),
        encoder.encode(benchmark.candidates["text"], "passage"),
    ]
    scores = np.float64(vectors[0]) @ np.float64(vectors[1]).T
    gaps = np.abs(
        scores[benchmark.question] - scores[benchmark.question, benchmark.candidate][:, None]
    )
    gaps[np.arange(len(gaps)), benchmark.candidate] = 1
    assert gaps.min() > 3e-6, "ties are broken differently: take other texts"
    ranks = relevant_ranks(tiles(*vectors), benchmark)
    means = metrics.pair_means(metrics.question_scores(benchmark, ranks))
    found = values(result[0], "local")
    compared = 0
    for (setting, asked, held), row in means.iterrows():
        if setting != "one_target":
            subset = f"{asked}-{'multi' if held == '*' else held}"
            assert found[subset, "ndcg_at_10"] == pytest.approx(row["ndcg10"], abs=2e-5)
            assert found[subset, "recall_at_100"] == pytest.approx(row["r100"], abs=2e-5)
            compared += 1
    assert compared == 6 and 0 < found["de-multi", "recall_at_100"] < 1


def test_bitext_agrees_with_argmax(encoder, result):
    """Accuracy and weighted F1 of mteb from the nearest English sentence by our own vectors, all
    encoded as questions (mteb gives no prompt type)."""
    texts = [[words("p", fact, language) for fact in range(FACTS)] for language in LANGUAGES]
    german, english = (encoder.encode(part, "question") for part in texts)
    nearest = (german @ english.T).argmax(1)
    right = nearest == np.arange(FACTS)
    # Each sentence is the answer once: its recall is 0 or 1, its precision 1 / times it was chosen.
    f1 = [2 / (1 + (nearest == fact).sum()) if right[fact] else 0.0 for fact in range(FACTS)]
    found = values(result[0], "LocalBitext")
    assert found["de-en", "accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    assert found["de-en", "f1"] == pytest.approx(np.mean(f1), abs=1e-6)
    assert found["de-en", "main_score"] == found["de-en", "f1"]


@pytest.mark.parametrize(
    ("prompt_type", "kind"), [("query", "question"), ("document", "passage"), (None, "question")]
)
def test_prompts(encoder, prompt_type, kind):
    """Queries and texts of no kind get the question prompt, documents the passage prompt; batches
    are joined in order."""
    from mteb.models import EncoderProtocol
    from mteb.types import PromptType

    model = ours.MtebEncoder(encoder, "study/key")
    assert isinstance(model, EncoderProtocol)
    texts, other = (
        [words(i) for i in range(5)],
        {"question": "passage", "passage": "question"}[kind],
    )
    vectors = model.encode(
        [{"text": texts[:3]}, {"text": texts[3:]}],
        task_metadata=None,
        hf_split="test",
        hf_subset="de",
        prompt_type=prompt_type and PromptType(prompt_type),
    )
    assert np.array_equal(vectors, encoder.encode(texts, kind))
    assert not np.allclose(vectors, encoder.encode(texts, other), atol=1e-3)
    cosines = vectors @ vectors.T
    assert np.allclose(model.similarity(vectors, vectors), cosines)
    assert np.allclose(model.similarity_pairwise(vectors[:4], vectors[1:]), np.diag(cosines, 1))


def test_results_are_in_mtebs_format(encoder, result):
    """mteb itself reads the result files and the model's description from the folder."""
    from mteb import ResultCache
    from mteb.models import ModelMeta

    scores, folder = result
    meta = ours.MtebEncoder(encoder, "study/key", LANGUAGES).mteb_model_meta
    read = ResultCache(folder).load_task_result("local", meta)
    assert read.dataset_revision == ours.custom_task(made()).metadata.revision
    assert sorted(read.hf_subsets) == ["de-de", "de-en", "de-multi", "en-de", "en-en", "en-multi"]
    mean = scores.query("task == 'local' and metric == 'main_score'")["value"].mean()
    assert read.get_score() == pytest.approx(mean)
    file = folder / "results" / "study__key" / ours.revision(encoder) / "model_meta.json"
    saved = ModelMeta.model_validate_json_resolved(file.read_text(encoding="utf-8"))
    assert (saved.embed_dim, saved.max_tokens) == (24, 24)
    assert saved.languages == ["deu-Latn", "eng-Latn"] and saved.use_instructions
    assert list(scores) == ours.COLUMNS and scores["value"].dtype == float


def test_results_are_not_computed_twice(encoder, result, monkeypatch):
    """A repetition reads the files and says the same; other prompts are another revision."""
    scores, folder = result
    tasks = [ours.custom_task(made()), bitext()]
    again = Encoder(encoder.model, encoder.tokenizer, encoder.settings)
    monkeypatch.setattr(again, "encode", None)
    said = []
    repeated = ours.run(again, tasks, folder, "study/key", say=said.append)
    pd.testing.assert_frame_equal(repeated, scores)
    assert [line.split(":")[0] for line in said] == ["local", "LocalBitext"]
    changed = replace(encoder.settings, question_prompt="tell ")
    assert ours.revision(again) == ours.revision(encoder)
    assert ours.revision(Encoder(encoder.model, encoder.tokenizer, changed)) != ours.revision(again)


def test_filtered_task(encoder, result):
    """A task that was narrowed gives its own subsets, also where the file holds more."""
    scores, folder = result
    task = ours.custom_task(made()).filter_languages(None, hf_subsets=["de-en"])
    narrow = ours.run(encoder, [task], folder, "study/key", say=lambda line: None)
    wanted = scores.query("task == 'local' and subset == 'de-en'").reset_index(drop=True)
    pd.testing.assert_frame_equal(narrow, wanted)


def test_revision_follows_weights_and_survives_saving(encoder, tmp_path):
    """A saved and loaded encoder has the same revision; one changed weight gives another."""
    save_encoder(encoder, tmp_path)
    loaded = load_encoder(tmp_path)
    assert ours.revision(loaded) == ours.revision(encoder)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[5, 5] += 1e-3
    assert ours.revision(loaded) != ours.revision(encoder)


def test_results_of_other_data_are_not_reused(encoder, tmp_path):
    """Under the same name in the same folder: they are those of a folder of its own."""
    for languages in ((*LANGUAGES, "zh-Hant"), LANGUAGES):
        task = ours.custom_task(made(languages))
        last = ours.run(encoder, [task], tmp_path / "both", say=lambda line: None)
    fresh = ours.run(encoder, [ours.custom_task(made())], tmp_path / "new", say=lambda line: None)
    pd.testing.assert_frame_equal(last, fresh)


def test_custom_task_knows_its_data():
    """Another text or grade is another revision; a grade of 1.5 has no place in mteb."""
    revisions = {
        ours.custom_task(benchmark).metadata.revision
        for benchmark in (made(), made(), made(grade=3.0), made(("de", "en", "zh-Hant")))
    }
    assert len(revisions) == 3
    with pytest.raises(ValueError, match="'local': relevant pair 0 has grade 1.5, expected"):
        ours.custom_task(made(grade=1.5))


@pytest.mark.parametrize(
    ("ours_code", "mtebs"),
    [("en", "eng-Latn"), ("zh", "zho-Hans"), ("zh-Hant", "zho-Hant"), ("ar", "ara-Arab")]
    + [("fr-CA", "fra-Latn"), ("sr-Latn", "srp-Latn"), ("ceb", "ceb-Latn"), ("hi", "hin-Deva")]
    + [("ko", "kor-Hang")],
)
def test_language(ours_code, mtebs):
    """ISO 639-3 of the language itself, not of one of its varieties, and the script."""
    assert ours.mteb_language(ours_code) == mtebs


def test_unknown_language():
    """A code that mteb cannot have is named."""
    with pytest.raises(ValueError, match="mteb knows no language 'qq'"):
        ours.mteb_language("qq")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("XQuADRetrival", "XQuADRetrieval"),
        ("MTEB(Multilingual, v9)", r"MTEB\(Multilingual, v2\)"),
        ("qqqqqqqq", "none with a similar name"),
    ],
)
def test_unknown_names(encoder, tmp_path, name, hint):
    """A name that is neither task nor benchmark: one line with near ones, nothing is run."""
    with pytest.raises(ValueError, match=hint) as caught:
        ours.run(encoder, [bitext(), name], tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_names_of_benchmarks_and_other_modalities():
    """A benchmark's name stands for its tasks; tasks with images are refused."""
    names = [task.metadata.name for task in ours._tasks("BEIR")]
    assert len(names) == 15 and "NFCorpus" in names
    assert [task.metadata.name for task in ours._tasks("Tatoeba")] == ["Tatoeba"]
    with pytest.raises(ValueError, match="'WITT2IRetrieval' is of .*image.*, expected text alone"):
        ours._tasks("WITT2IRetrieval")


def test_bad_model_name(encoder):
    """mteb wants owner/model."""
    with pytest.raises(ValueError, match="model name is 'key', expected owner/model"):
        ours.MtebEncoder(encoder, "key")


def test_data_sets_that_cannot_be_loaded(encoder, tmp_path, offline):
    """Each is one line with task, data set and revision (of an aggregate: its part); the results
    of other tasks are kept."""
    said = []
    tasks = ["XQuADRetrieval", "CQADupstackRetrieval", bitext()]
    with pytest.raises(ours.Incomplete) as caught:
        ours.run(encoder, tasks, tmp_path, say=said.append)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and said[:2] == lines
    pattern = r"task '(\w+)': data set (\S+) at revision [0-9a-f]{40} cannot be loaded: \S"
    found = [re.match(pattern, line).groups() for line in lines]
    assert found[0] == ("XQuADRetrieval", "mteb/XQuADRetrieval")
    assert found[1][0].startswith("CQADupstack") and found[1][0] != "CQADupstackRetrieval"
    assert set(caught.value.scores["task"]) == {"LocalBitext"}
    assert len(list(tmp_path.rglob("LocalBitext.json"))) == 1


def test_private_data_sets(encoder, tmp_path, monkeypatch):
    """One that needs a login is missing like any other, where mteb itself would only warn."""
    from datasets.exceptions import DatasetNotFoundError

    def load_data(**_):
        raise DatasetNotFoundError("not found, or gated")

    task = bitext()
    monkeypatch.setattr(task, "load_data", load_data)
    private = task.metadata.model_copy(update={"is_public": False})
    monkeypatch.setattr(type(task), "metadata", private)
    with pytest.raises(ours.Incomplete, match="local/bitext at revision 1 .*: not found, or gated"):
        ours.run(encoder, [task], tmp_path, say=lambda line: None)


def test_other_errors_are_not_taken_for_missing_data(encoder, tmp_path, monkeypatch):
    """A fault after the data was loaded is raised as it is."""
    broken = Encoder(encoder.model, encoder.tokenizer, encoder.settings)
    monkeypatch.setattr(broken, "encode", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ours.run(broken, [bitext()], tmp_path)


def test_a_benchmark_of_the_runs_own(encoder, tmp_path, capsys, offline):
    """By the name that the study gave it, as a task of mteb, and no other is."""
    run = tmp_path / "mine" / "runs" / "seed=0"
    rows = [
        {"pair": str(number), "language": language, "question": words("q", number, language),
         "passage": words("p", number, language), "passage_id": str(number),
         "group": str(number), "source": "test"}
        for language in LANGUAGES
        for number in range(6)
    ]  # fmt: skip
    pool = [{k: row[k] for k in ("passage_id", "language", "passage")} for row in rows]
    corpus = corpus_of_rows(rows[:2], {}, rows, pool)
    with store.atomic_folder(tmp_path / "mine/corpus/base/data", corpus.meta) as new:
        corpus.save(new)
    save_encoder(encoder, run / "model")
    specs = {"own": {"format": "heldout"}, "sentences": {"format": "tatoeba", "folder": "x"}}
    store.write_json(run / "metrics.json", {"benchmarks": specs})
    store.write_json(run / "params.json", {"corpus": "base"})
    assert ours.main([str(run / "model"), "own"]) == 0
    said = capsys.readouterr().out
    assert {line.split()[1] for line in said.splitlines()} == {
        f"{a}-{b}" for a in LANGUAGES for b in (*LANGUAGES, "multi")
    }
    results = (run / "mteb" / "results" / "mine__seed=0").glob("*/own.json")
    from mteb import TaskResult

    assert TaskResult.from_disk(next(results)).task_name == "own"
    assert ours.main([str(run / "model"), "sentences"]) == 2  # of mteb there is none of this name
    specs["own"]["prompt"] = "ask so: "
    store.write_json(run / "metrics.json", {"benchmarks": specs})
    assert ours.main([str(run / "model"), "own"]) == 2
    assert "'own': has a prompt, for which mteb has no place" in capsys.readouterr().err


def test_an_encoder_with_frozen_layers_is_asked_in_one_piece(tmp_path, monkeypatch):
    """The same figures as without, and no states are kept of what mteb asks."""
    monkeypatch.setenv("BATCHES_CACHE", str(tmp_path / "cache"))
    benchmark, file = made(), tmp_path / "tokenizer.json"
    train_tokenizer([*benchmark.questions["text"]], 200).save(str(file))
    found = []
    for layers in (0, 1):
        encoder = build_encoder(SMALL.model_copy(update={"layers": 2}), file)
        frozen.freeze(encoder, layers)
        task = ours.custom_task(benchmark)
        found.append(ours.run(encoder, [task], tmp_path / str(layers), say=lambda line: None))
        assert (encoder.lower is None) == (layers == 0)
    pd.testing.assert_frame_equal(*found)
    assert not (tmp_path / "cache" / "states").exists()


def test_half_a_result_file(encoder, tmp_path):
    """What a killed run left of a result file is named, and not taken for missing data."""
    file = tmp_path / "results" / "local__encoder" / ours.revision(encoder) / "LocalBitext.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"dataset_rev', encoding="utf-8")
    with pytest.raises(store.Damaged, match="LocalBitext.json: is not readable as JSON"):
        ours.run(encoder, [bitext()], tmp_path)


def test_command(encoder, tmp_path, capsys, monkeypatch, offline):
    """Main scores go to the screen, results below the run's folder, under study and key."""
    model = tmp_path / "quick" / "runs" / "arm=mono,seed=0" / "model"
    save_encoder(encoder, model)
    monkeypatch.setattr(ours, "_tasks", lambda name: [bitext()])
    assert ours.main([str(model), "Any"]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"LocalBitext de-en test: 0\.\d{4}\n", out)
    results = model.parent / "mteb" / "results" / "quick__arm=mono,seed=0"
    assert len(list(results.glob("*/LocalBitext.json"))) == 1


@pytest.mark.parametrize(
    ("task", "code", "words"),
    [
        ("XQuADRetrival", 2, "did you mean XQuADRetrieval"),
        ("XQuADRetrieval", 1, "data set mteb/XQuADRetrieval at revision"),
    ],
)
def test_command_ends_with_one_line(encoder, tmp_path, capsys, offline, task, code, words):
    """A wrong name ends with 2, a missing data set with 1."""
    save_encoder(encoder, tmp_path / "model")
    assert ours.main([str(tmp_path / "model"), task, "--out", str(tmp_path / "out")]) == code
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and not said.out


def test_command_without_a_model(tmp_path, capsys):
    """A folder that holds no encoder is named in one line."""
    assert ours.main([str(tmp_path), "XQuADRetrieval"]) == 2
    assert (
        capsys.readouterr().err == f"{tmp_path} holds no saved encoder (encoder.json is missing)\n"
    )
