"""Files in the formats of real data, from a study file to the report's tables, at toy size.

So are studies of params/full: a run of each kind, with all that its file sets but sizes, and a tiny
random checkpoint of its encoder's type.
"""

import json
import random
import re
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import transformers
from test_study_run import stages_in_process

from lib.params import Train
from lib.store import ROOT
from lib.study import grid
from lib.study.__main__ import main
from lib.training.models import build_encoder
from lib.training.tokenizer import train_tokenizer

ELEVEN = "ar de el en es hi ru th tr vi zh".split()
TRAINED = ["de", "en", "es"]
STUDY = """
prepare: {{source: xtreme_squad, folder: '{0}/squad', vocabulary: 400}}
train: {{steps: 6, batch_size: 8, width: 16}}
evaluate:
  benchmarks:
    whole: {{format: lareqa, folder: '{0}/lareqa'}}
    part: {{format: lareqa, folder: '{0}/lareqa', trained: true}}
    beir: {{format: beir, folder: '{0}/beir'}}
    tatoeba: {{format: tatoeba, folder: '{0}/tatoeba'}}
vary:
  arm:
    mono:   {{train.strategy: mono}}
    hybrid: {{train.strategy: hybrid}}
"""
# arm: study of params/full, its run, and the model that stands in for its encoder
KINDS = {
    "bert": ("lareqa", "arm=x-x,seed=0", "Bert"),
    "mt5": ("mt5", "encoder=base,arm=mix50,seed=0", "MT5"),
    "decoder": ("decoders_7b_13b", "encoder=llama-7b,arm=cross,seed=0", "Llama"),
    "instruct": ("rq5_instruct", "arm=hybrid50-words,seed=0", "XLMRoberta"),
}
SMALL = {"steps": 3, "batch_size": 8, "max_length": 100}
# Of the data and not of the encoder: mMARCO's negatives (tests/test_full_studies.py has them).
OF_THE_DATA = {"study", "run", "corpus", "seed", "negatives", "explicit"}


def sentence(language: str, number: int) -> str:
    """Six invented words; a number is one meaning, whose words differ by language."""
    draw = random.Random(f"{language} {number}")
    words = ("".join(draw.choice("abcdefghijklmnop") for _ in range(5)) for _ in range(6))
    return " ".join(words).capitalize() + "."


def squad(language: str, paragraphs: range) -> dict:
    """Paragraphs of two sentences with a question on each, as SQuAD and LAReQA write them."""
    found = []
    for number in paragraphs:
        both = [sentence(language, 2 * number + k) for k in (0, 1)]
        starts, questions = [0, len(both[0]) + 1], []
        for k, (start, text) in enumerate(zip(starts, both, strict=True)):
            first, second, third, *_ = text.split()
            answer = {"text": third, "answer_start": start + len(first) + len(second) + 2}
            questions.append(
                {"id": f"q{number}-{k}", "question": f"{first} {second} ?", "answers": [answer]}
            )
        breaks = [[start, start + len(text)] for start, text in zip(starts, both, strict=True)]
        found.append({"context": " ".join(both), "qas": questions, "sentence_breaks": breaks})
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": found}]}


def write(folder, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_data(folder) -> None:
    """A training folder in three languages, LAReQA in eleven, BEIR in English, two of Tatoeba."""
    write(folder, {f"squad/{x}.json": json.dumps(squad(x, range(40))) for x in TRAINED})
    write(folder, {f"lareqa/{x}.json": json.dumps(squad(x, range(90, 95))) for x in ELEVEN})
    documents = [{"_id": f"d{n}", "title": "", "text": sentence("en", n)} for n in range(300, 320)]
    queries = [{"_id": f"q{n}", "text": sentence("en", n)[:17]} for n in range(300, 312)]
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(300, 312))
    write(
        folder,
        {
            "beir/corpus.jsonl": lines(documents),
            "beir/queries.jsonl": lines(queries),
            "beir/qrels/test.tsv": "query-id\tcorpus-id\tscore\n" + judged,
        },
    )
    for name, language in (("deu", "de"), ("spa", "es")):
        for side, spoken in ((name, language), ("eng", "en")):
            text = "".join(f"{sentence(spoken, n)}\n" for n in range(400, 430))
            write(folder, {f"tatoeba/tatoeba.{name}-eng.{side}": text})


def checkpoint(folder, kind: str, texts: list[str]) -> str:
    """A folder with a tiny random model of a class of transformers, and a tokenizer of texts."""
    folder.mkdir()
    train_tokenizer(texts, 400).save(str(folder / "words.json"))
    words = build_encoder(Train(width=16), folder / "words.json").tokenizer
    words.save_pretrained(folder)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=120, pad_token_id=words.pad_token_id,
        **{"d_kv": 8, "d_ff": 32} if kind == "MT5" else {},
    )  # fmt: skip
    torch.manual_seed(0)
    encoder = "MT5EncoderModel" if kind == "MT5" else f"{kind}Model"
    getattr(transformers, encoder)(config).save_pretrained(folder)
    return str(folder)


def stand_in(folder, arm: str) -> dict:
    """What an arm of KINDS sets: as the full study does, but for sizes, data and weights."""
    name, key, kind = KINDS[arm]
    p = grid.load_study(str(ROOT / f"params/full/{name}.yaml")).runs[key].train
    own = {n: v for n, v in p.known().items() if v != p.defaults()[n] and n not in OF_THE_DATA}
    words = [sentence(language, n) for language in TRAINED for n in range(80)]
    words += [v for n, v in own.items() if n.endswith("prompt")]
    own |= SMALL | {"model": checkpoint(folder / arm, kind, words)}
    own |= {"chunk": 8} if p.chunk else {}
    return {f"train.{n}": v for n, v in own.items()}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study, run once: its folder of outputs, and the report's tables as they are shown."""
    folder = tmp_path_factory.mktemp("real")
    write_data(folder)
    file, outputs = folder / "real.yaml", folder / "outputs"
    arms = {arm: stand_in(folder, arm) for arm in KINDS}
    lines = [f"    {arm}: {json.dumps(settings)}\n" for arm, settings in arms.items()]
    file.write_text(STUDY.format(folder) + "".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BATCHES_OUTPUTS", str(outputs))
        with stages_in_process(folder):
            assert main(["run", str(file)]) == 0
    report = outputs / "real/report"
    html = (report / "index.html").read_text(encoding="utf-8")
    return SimpleNamespace(runs=outputs / "real/runs", report=report, html=html, arms=arms)


def shown(html: str, heading: str) -> list[str]:
    """Row names of the tables below an h2 that begins with `heading`, a table one string."""
    section = re.split(r"<h2", re.split(rf"<h2[^>]*>{heading}", html)[1])[0]
    tables = re.findall(r"<table.*?</table>", section, re.S)
    return [" | ".join(re.findall(r"<th[^>]*>([^<]+)</th>", table)) for table in tables]


def test_quality_holds_every_setting_of_the_first_benchmark(study):
    """Both arms and the references in all three settings; the oracle is perfect in its own."""
    quality = pd.read_csv(study.report / "tables/quality.csv")
    ap = quality[quality["metric"] == "ap"].set_index(["arm", "setting"])["estimate"]
    for arm in ("mono", "hybrid(0.5)", "random", "own-language oracle", "BM25 words"):
        assert ap[arm].between(0, 1).all() and set(ap[arm].index) == {"mono", "cross", "multi"}
    assert ap["own-language oracle", "mono"] == 1
    assert ap["own-language oracle", "multi"] < 1


def test_other_benchmarks_have_tables_of_their_own(study):
    """The part in trained languages in all settings; the English set has no other language."""
    further = pd.read_csv(study.report / "tables/further.csv")
    settings = further.groupby("benchmark")["setting"].agg(set)
    assert set(settings.index) == {"part", "beir"}
    assert settings["part"] == {"mono", "cross", "multi"} and "cross" not in settings["beir"]
    assert not further["estimate"].isna().any()


def test_published_rows_stand_only_beside_the_published_questions(study):
    """A set of one's own in the same format, however many languages it has, gets none."""
    tables = [
        *shown(study.html, "Every arm, every setting"),
        *shown(study.html, "Other benchmarks"),
    ]
    assert len(tables) >= 4 and not any("published" in table for table in tables)


def test_languages_never_trained_on_are_reported_apart(study):
    """Strata by training, of the right questions: three of eleven languages were trained on."""
    scores = pd.read_parquet(study.runs / "arm=mono/scores/whole.parquet")
    mono = scores[scores["setting"] == "mono"].groupby("question_language", observed=True)
    assert {x: set(own["trained"]) for x, own in mono} == {
        x: {"both" if x in TRAINED else "neither"} for x in ELEVEN
    }
    strata = pd.read_csv(study.report / "tables/strata.csv").set_index(
        ["arm", "setting", "stratum"]
    )["estimate"]
    never = mono["ap"].mean().drop(TRAINED).mean()
    assert strata["mono", "mono", "neither trained"] == pytest.approx(never, abs=1e-6)
    assert "mono, neither trained" in study.html


def test_sentence_search_is_shown_as_it_was_scored(study):
    """The report's accuracy is the mean over the two languages of the saved one, by direction."""
    for arm in ("mono", "hybrid"):
        scores = pd.read_parquet(study.runs / f"arm={arm}/scores/tatoeba.parquet")
        assert scores.groupby("direction")["name"].agg(list).to_dict() == {
            "from_en": ["deu", "spa"],
            "to_en": ["deu", "spa"],
        }
        for mean in scores.groupby("direction")["accuracy"].mean():
            assert f"{mean:.3f} [" in study.html
    assert "tatoeba, to_en" in study.html and "tatoeba, from_en" in study.html


def test_full_studies_end_in_the_report(study):
    """Each kind trained as its file says (asked again from what the run recorded), was evaluated,
    and has its row in the report."""
    quality = pd.read_csv(study.report / "tables/quality.csv").query("metric == 'ap'")
    names = {"bert": "x-x", "mt5": "mix(0.5)", "decoder": "cross"}
    for arm, settings in study.arms.items():
        run = study.runs / f"arm={arm}"
        kept = json.loads((run / "params.json").read_text())
        assert all(kept[n.removeprefix("train.")] == v for n, v in settings.items())
        log = pd.read_parquet(run / "train_log.parquet")
        assert len(log) == SMALL["steps"] and log["loss"].notna().all()
        found = [x for x in set(quality["arm"]) if x == names.get(arm, x)]
        found = found if arm in names else [x for x in found if x.startswith("hybrid(0.5), ")]
        assert len(found) == 1 and len(quality[quality["arm"] == found[0]]) == 3
        assert f"{found[0]}".replace('"', "&quot;") in study.html or found[0] in study.html
    config = {arm: json.loads((study.runs / f"arm={arm}/model/config.json").read_text())
              for arm in KINDS}  # fmt: skip
    types = [config[arm]["model_type"] for arm in KINDS]
    assert types == ["bert", "mt5", "llama", "xlm-roberta"]


def test_no_figure_of_a_page_is_missing(study):
    """No page says None or nan where a figure should stand."""
    for page in study.report.glob("*.html"):
        text = re.sub(r"<(style|svg|script).*?</\1>", "", page.read_text("utf-8"), flags=re.S)
        assert not re.search(r"\bnan\b|>None<| None ", re.sub(r"base64,[^\"']*", "", text)), page
