"""Questions with a prompt of their kind: which they have, what is kept of them, and what is read
off encoders that are asked with one and the other."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from test_results import made_up
from test_trainer import PARAMS
from tokenizers import Tokenizer

from lib.analysis import alts, forests, prompts, stats
from lib.analysis.results import Results, ScoredRun, arm_labels
from lib.benchmarks import heldout
from lib.encoder import Encoder
from lib.params import BadParameter, BenchmarkSpec, Evaluate, Train, checked
from lib.study import evaluate, look
from lib.trainer import schedule, train
from lib.training import objectives
from lib.training import prompts as asked
from lib.training.models import build_encoder
from lib.training.tokens import SIDES, Tokens
from tests.test_evaluate import saved

WORDS = {"mono_prompt": "ask own: ", "cross_prompt": "ask any other: "}
PLAIN = {"negatives": "in_batch", "explicit": 0, "question_prompt": "ask ", "max_length": 32}


def run(corpus, **changes):
    """(parameters, encoder, schedule, texts) of a run with prompts."""
    p = PARAMS.model_copy(update=PLAIN | WORDS | changes)
    encoder, batches = build_encoder(p, corpus.tokenizer_file), schedule(corpus.index, p)
    return p, encoder, batches, asked.texts(corpus, encoder, p, batches)


def by_hand(corpus, p, batch):
    """Token numbers of a batch's questions and passages, straight from their texts."""
    words = Tokenizer.from_file(str(corpus.tokenizer_file))
    wanted = {side: [] for side in SIDES}
    text = {(r["pair"], r["language"]): r for r in corpus.rows}
    pairs, names = sorted({pair for pair, _ in text}), corpus.languages
    own = batch.question_language == batch.passage_language
    for place, pair in enumerate(batch.pair):
        languages = {
            "question": names[batch.question_language[place]],
            "passage": names[batch.passage_language[place]],
        }
        prompt = (p.mono_prompt if own[place] else p.cross_prompt) or p.question_prompt
        for side, before in zip(SIDES, (prompt, ""), strict=True):
            own_text = text[pairs[pair], languages[side]][side]
            wanted[side].append(words.encode(before + own_text).ids)
    return wanted


@pytest.mark.parametrize(
    ("strategy", "others"),
    [("hybrid", {}), ("mix", {}), ("mix", {"mono_prompt": ""}), ("x-x", {"cross_prompt": ""})],
)
def test_every_row_has_the_prompt_of_its_kind(corpus, strategy, others):
    """Batch by batch or row by row, from the texts; without one of them the encoder's own."""
    p, _, batches, texts = run(corpus, strategy=strategy, **others)
    for batch in (batches.batch(step) for step in range(4)):
        wanted = by_hand(corpus, p, batch)
        for side, (rows, _) in objectives.rows(corpus.index, batch, p):
            taken = texts.take(side, rows)
            assert [x.tolist() for x in taken] == wanted[side]
            assert [len(x) for x in wanted[side]] == texts.lengths(side)[rows].tolist()
            assert np.isin(np.concatenate(taken), texts.used).all()


def test_passages_are_kept_once_and_questions_by_prompt(corpus):
    """Three folders, of which one has passages; another run with one of the prompts adds none."""
    place = corpus.folder.parent / "tokens"
    before = set(place.glob("*/")) if place.exists() else set()
    run(corpus, question_prompt="once ", mono_prompt="once own ", cross_prompt="once any ")
    new = set(place.glob("*/")) - before
    having = [Tokens(folder) for folder in new]
    assert sorted("passage" in texts._parts for texts in having) == [False, False, True]
    run(corpus, question_prompt="once ", mono_prompt="once any ", cross_prompt="", strategy="mix")
    assert set(place.glob("*/")) - before == new


def test_only_questions_that_will_be_asked_are_computed_ahead(corpus):
    """Of three prompts' questions those of the schedule alone; every passage."""
    p, _, batches, texts = run(corpus, steps=3)
    rows = [asked.rows(corpus.index, batch, p)["question"][0] for batch in batches]
    assert texts.ahead("question").tolist() == sorted({*np.concatenate(rows).tolist()})
    assert len(texts.ahead("question")) <= 3 * p.batch_size
    assert len(texts.ahead("passage")) == len(corpus.rows) == len(texts.lengths("passage"))
    assert len(texts.lengths("question")) == 3 * len(corpus.rows)


def test_a_run_without_prompts_is_what_it_was(corpus):
    """Neither its texts nor what tells runs apart know of prompts."""
    p = PARAMS.model_copy(update=PLAIN)
    encoder, batches = build_encoder(p, corpus.tokenizer_file), schedule(corpus.index, p)
    assert type(asked.texts(corpus, encoder, p, batches)) is Tokens
    assert not {"mono_prompt", "cross_prompt"} & {*p.of_the_work()}
    assert {*WORDS} <= {*p.model_copy(update=WORDS).of_the_work()}
    assert "prompt" not in BenchmarkSpec(format="heldout").model_dump()


def test_training_sees_and_counts_the_prompts(corpus, tmp_path):
    """A whole run: its first loss is that of the texts with their prompts, as 02_train shows it
    beforehand; its exposure has the tokens of each question with its prompt."""
    p, _, batches, _ = run(corpus, steps=3, dropout=0.0, strategy="mix")
    question, passage = look.vectors(corpus, p, batches.batch(0))
    found = train(corpus, p, tmp_path)
    scores = question @ passage.T / p.temperature
    loss = (scores.logsumexp(1) - scores.diagonal()).mean()
    assert found.log["loss"].iloc[0] == pytest.approx(float(loss), rel=1e-5)
    plain = p.model_copy(update={"mono_prompt": "", "cross_prompt": ""})
    assert not torch.equal(look.vectors(corpus, plain, batches.batch(0))[0], question)
    wanted = [by_hand(corpus, p, batch) for batch in batches]
    tokens = sum(len(x) for batch in wanted for lists in batch.values() for x in lists)
    assert found.exposure["tokens"] == tokens
    assert found.encoder.settings.question_prompt == "ask "


def test_one_language_alone_goes_with_arms_within_a_language():
    with pytest.raises(BadParameter, match="only: en does not go with strategy 'hybrid'"):
        checked(Train, {"strategy": "hybrid", "only": "en"})
    assert "only" not in Train(strategy="mono").of_the_work()
    assert Train(strategy="mono", only="deu").of_the_work()["only"] == "de"


def test_an_objective_that_translates_questions_is_refused():
    with pytest.raises(BadParameter, match="mono_prompt: .* does not go with objective 'lakda'"):
        checked(Train, {"objective": "lakda", "mono_prompt": "own: "})


# --- at test -----------------------------------------------------------------------------------


def test_asking_comes_back(corpus):
    """The prompt stands before questions alone, inside alone, also after an error."""
    _, encoder, _, _ = run(corpus)
    own = encoder.tokenize(["word"], "question")[0]
    with pytest.raises(KeyError), asked.asking(encoder, "say: "):
        said = encoder.tokenize(["word"], "question")[0]
        words = Tokenizer.from_file(str(corpus.tokenizer_file))
        assert said.tolist() == words.encode("say: word").ids
        assert encoder.tokenize(["word"], "passage")[0].tolist() == words.encode("word").ids
        raise KeyError
    assert encoder.tokenize(["word"], "question")[0].tolist() == own.tolist()
    with asked.asking(encoder, ""):
        assert encoder.tokenize(["word"], "question")[0].tolist() == own.tolist()


def test_benchmarks_that_differ_in_their_prompt(tmp_path, corpus, outputs, monkeypatch):
    """Scores are those of an encoder with that prompt; passages are embedded once for all."""
    own = saved(tmp_path, {letter: f"the word {letter}" for letter in "abcdefgh"})
    specs = {"plain": {"format": "heldout"}, "said": {"format": "heldout", "prompt": "own: "}}
    p = Evaluate(benchmarks=specs)
    embedded, original = [], Encoder.vectors

    def vectors(encoder, tokens, batch_size=256):
        embedded.append(len(tokens))
        return original(encoder, tokens, batch_size)

    monkeypatch.setattr(evaluate, "with_references", lambda *_: None)
    monkeypatch.setattr(Encoder, "vectors", vectors)
    _, encoder, _, _ = run(corpus)
    found = {name: evaluate.evaluate(name, p, encoder, own, tmp_path) for name in specs}
    size = heldout.load_benchmark(own)
    assert embedded == [len(size.questions), len(size.candidates), len(size.questions)]
    _, other, _, _ = run(corpus, question_prompt="own: ")
    wanted = evaluate.evaluate("plain", p, other, own, tmp_path).scores
    pd.testing.assert_frame_equal(found["said"].scores, wanted)
    assert not found["plain"].scores["ap"].equals(wanted["ap"])


# --- can the question choose? ------------------------------------------------------------------

MARKS = {"mono_prompt": "blue: ", "cross_prompt": "red: "}
ARMS = {
    "mono": Train(strategy="mono"),
    'hybrid(0.5), "own"': Train(mono_prompt="own: ", cross_prompt="any: "),
    'hybrid(0.5), "blue"': Train(**MARKS),
}
SPECS = {
    "plain": BenchmarkSpec(format="heldout"),
    "own": BenchmarkSpec(format="heldout", prompt="own: "),
    "any": BenchmarkSpec(format="heldout", prompt="any: "),
    "elsewhere": BenchmarkSpec(format="heldout", clusters="paragraph", prompt="red: "),
}


def results(gains, seeds=5):
    """Scores of ARMS, each better by its gain (and less biased by as much); others alike."""
    runs, sums, cells = [], [], []
    for arm, own in ARMS.items():
        for seed in range(seeds):
            runs.append(
                ScoredRun(f"{arm}-{seed}", arm, own.model_copy(update={"seed": seed}), None)
            )
            found = made_up(gains.get(arm, 0.0), seed)
            sums.append(found[0].assign(arm=arm, seed=seed))
            cells.append(found[1].assign(arm=arm, seed=seed))
    return Results("made-up", runs, pd.concat(sums), pd.concat(cells))


@cache
def loaded(seeds=5):
    """Asked with "own" the arm that was trained so has .03 more mAP, .03 less advantage (made-up
    scores tie the two); with "any" .01 more."""
    arm = 'hybrid(0.5), "own"'
    gains = {"plain": {}, "own": {arm: 0.03}, "any": {arm: 0.01}, "elsewhere": {}}
    return {name: results(own, seeds) for name, own in gains.items()}


@cache
def told():
    return prompts.choices(loaded(), SPECS, "plain")


def test_right_minus_swapped_by_hand():
    """In mono .03 - .01, in cross .01 - .03, and against none .03 and .01; others 0. The pair that
    no benchmark of the kind asks with is left out."""
    table = told()
    assert set(table["prompts"]) == {'"own" / "any"'}
    keys = ["measure", "versus", "arm"]
    found = table.set_index(keys)["difference"]
    arm = 'hybrid(0.5), "own"'
    assert found["mono mAP", "swapped", arm] == pytest.approx(0.02)
    assert found["cross mAP", "swapped", arm] == pytest.approx(-0.02)
    assert found["mono mAP", "none", arm] == pytest.approx(0.03)
    assert found["cross mAP", "none", arm] == pytest.approx(0.01)
    assert found["own-language advantage", "swapped", arm] == pytest.approx(-0.02)
    assert found.xs("mono", level="arm").abs().max() < 1e-12
    assert table.groupby("arm")["own"].all().to_dict() == {a: a == arm for a in ARMS}
    assert table.set_index(keys)["verdict"]["mono mAP", "swapped", arm] == "higher"


def test_p_values_are_adjusted_over_a_measure():
    table = told()
    block = table[(table["measure"] == "mono mAP") & (table["versus"] == "none")]
    assert block["p_holm"].tolist() == stats.holm(block["p"].tolist()).tolist()


def test_few_seeds_decide_nothing_and_no_prompts_show_nothing():
    few = prompts.choices(loaded(3), SPECS, "plain")
    assert set(few["verdict"]) == {stats.NO_VERDICT}
    text = prompts.answer(few)
    assert text.startswith("**Undecided: 3 seeds decide nothing; five are needed.** So far: right ")
    plain = {"plain": loaded(1)["plain"]}
    none = prompts.choices(plain, SPECS, "plain")
    assert none.empty and prompts.shown(none).empty and prompts.answer(none) == ""
    assert not forests.prompts(none).panels


def test_table_figure_and_words():
    table = told()
    shown = prompts.shown(table)
    assert list(shown) == ["difference", "asked with", "arm", *prompts.MEASURES]
    versus = [name for name in ("swapped", "none") for _ in ARMS]
    assert list(shown["difference"]) == [f"right \N{MINUS SIGN} {name}" for name in versus]
    assert shown.loc[1, "arm"] == 'hybrid(0.5), "own"'
    assert shown.loc[1, "mono mAP"].startswith("+0.020 [")
    assert set(forests.prompts(table).panels) == set(prompts.MEASURES) == set(alts.prompts(table))
    text = prompts.answer(table)
    assert text.startswith("**No: what is asked for comes less, not more.** Right prompt less ")
    assert 'hybrid(0.5), "own": own-language advantage -0.020 [' in text
    assert "mono mAP +0.020 [" in text and "(higher)" in text and "Control" not in text


@cache
def controlled():
    """The same, with a control: asked with "blue" its arm has .02 more, with "red" .01."""
    own, other = 'hybrid(0.5), "own"', 'hybrid(0.5), "blue"'
    gains = {"plain": {}, "own": {own: 0.03}, "any": {own: 0.01}}
    gains |= {"blue": {other: 0.02}, "red": {other: 0.01}}
    specs = SPECS | {
        name: BenchmarkSpec(format="heldout", prompt=f"{name}: ") for name in ("blue", "red")
    }
    return prompts.choices({name: results(g) for name, g in gains.items()}, specs, "plain")


def test_what_is_beyond_the_control_by_hand():
    """In mono .02 less .01, in cross -.02 less -.01; a row for the arm with the words alone, and
    the control has its own."""
    table = controlled()
    beyond = table[table["versus"] == prompts.CONTROL]
    assert set(beyond["prompts"]) == {'"own" / "any"'} and set(beyond["arm"]) == {[*ARMS][1]}
    found = beyond.set_index("measure")["difference"]
    assert found["mono mAP"] == pytest.approx(0.01)
    assert found["cross mAP"] == pytest.approx(-0.01)
    blue = table[table["own"] & (table["prompts"] == '"blue" / "red"')]
    found = blue.set_index(["measure", "versus"])["difference"]
    assert found["mono mAP", "swapped"] == pytest.approx(0.01)
    shown = prompts.shown(table)
    last = shown["difference"].str.endswith("less the control's")
    assert last.sum() == 1 and last.iloc[-1] and shown.loc[last, [*prompts.MEASURES]].all(axis=None)


def told_by(words, control, beyond):
    """A table of verdicts on the own-language advantage alone."""
    rows = [
        ("swapped", '"own" / "any"', "with words", 0.4, words),
        ("swapped", '"blue" / "red"', "with marks", 0.3, control),
        (prompts.CONTROL, '"own" / "any"', "with words", 0.1, beyond),
    ]
    table = pd.DataFrame(rows, columns=["versus", "prompts", "arm", "difference", "verdict"])
    table = table.assign(measure="own-language advantage", own=True, seeds=8, detectable=0.05)
    return table.assign(low=table["difference"] - 0.01, high=table["difference"] + 0.01)


def test_the_answer_is_yes_or_no_beside_the_control():
    """In full of words and control that both choose; then what is said first of other verdicts."""
    assert prompts.answer(told_by("higher", "higher", "undecided")) == (
        "**Yes, the question can choose; that it can do so better than with prompts that mean "
        'nothing is not shown.** Right prompt less swapped, "own" / "any": with words: '
        "own-language advantage +0.400 [+0.390, +0.410] (higher). Control, "
        '"blue" / "red": with marks: own-language advantage +0.300 [+0.290, +0.310] (higher). '
        "Beyond the control: with words: own-language advantage +0.100 [+0.090, +0.110] "
        "(undecided, detectable 0.050)."
    )
    for verdicts, said in {
        ("higher", "undecided", "higher"): "**Yes, the question can choose, and more than with pro",
        ("higher", "higher", "lower"): "**Yes, the question can choose, but less than with prompt",
        ("higher", "higher", "equivalent"): "**Yes, the question can choose, as it can with promp",
        ("undecided", "higher", "lower"): "**That the question can choose is not shown.** Right",
        ("lower", "higher", "lower"): "**No: what is asked for comes less, not more.** Right",
    }.items():
        assert prompts.answer(told_by(*verdicts)).startswith(said)


def test_arms_are_named_after_what_they_are_asked_and_where():
    trains = {
        "arm=a,seed=0": Train(),
        "arm=b,seed=0": Train(question_prompt="q: ", mono_prompt="q: own: ", cross_prompt="q: any"),
        "arm=c,seed=0": Train(strategy="mix", cross_prompt="red: "),
        "arm=d,seed=0": Train(strategy="mono", only="dan"),
        "arm=e,seed=0": Train(strategy="mono"),
    }
    named = ["hybrid(0.5)", 'hybrid(0.5), "own"', 'mix(0.5), "red"', "da alone", "mono"]
    assert [*arm_labels(trains).values()] == named
