"""The embedded corpus: its facts, its split, its strata and its knobs."""

import os
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from babel.core import get_global

from lib.params import Prepare
from lib.sources import axes, cldr
from lib.sources import cldr_facts as graph
from lib.store import ROOT
from lib.training.tokenizer import tokenizer_texts, train_tokenizer

ELEVEN = tuple("ar de el en es hi ru th tr vi zh".split())


def build(**changes):
    return cldr.build_corpus(Prepare(**changes))


@pytest.fixture(scope="module")
def corpus():
    return build()


FEW = ["de", "en", "tr"]


@pytest.fixture(scope="module")
def few():
    """The corpus in three languages: knobs do the same in all."""
    return build(languages=FEW)


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return train_tokenizer(tokenizer_texts(corpus), 8000)


@pytest.fixture(scope="module")
def facts():
    return graph.facts(ELEVEN, len(ELEVEN))


def test_at_least_a_thousand_facts_exist_in_all_languages(facts, corpus):
    """The corpus is large enough, and every fact that it counts has a passage in each language."""
    assert len(facts) >= 1000
    assert corpus.meta["facts"] == len(facts)
    assert set(Counter(corpus.pool["language"][:]).values()) == {len(facts)}


def test_facts_are_those_of_cldr(facts):
    """Known facts are there, with all their answers."""
    found = {f.id: {code for _, code in f.answers} for f in facts}
    assert found["currency:JP"] == {"JPY"}
    assert found["official:FI"] == {"fi", "sv"}
    assert found["city:Asia/Tokyo"] == {"JP"}
    assert found["script:ru"] == {"Cyrl"}


def test_every_relation_is_used(facts):
    """All seven relations that Babel holds are there."""
    assert {f.relation for f in facts} == {
        "currency",
        "former",
        "official",
        "spoken",
        "script",
        "city",
        "zone",
    }


def test_no_name_has_digits_or_is_a_code(corpus):
    """Names, never codes: no digit occurs in any text, in any script."""
    for table in (corpus.rows["passage"][:], corpus.test["question"][:], corpus.pool["passage"][:]):
        assert not any(c.isdigit() for text in table for c in text)


def test_default_city_names_only_in_latin_languages():
    """A zone's last field names a city only where the script is Latin."""
    assert graph.name(("city", "America/New_York"), "en") == "New York"
    assert graph._city("ru", "America/Nowhere_At_All") is None
    assert graph._city("vi", "America/Nowhere_At_All") == "Nowhere At All"


def test_names_are_unambiguous(facts):
    """Within a kind no two entities share a name in any language, so no question has two answers
    because of a name."""
    for language in ELEVEN:
        entities = {e for f in facts for e in f.entities}
        names = Counter((e[0], graph.name(e, language).casefold()) for e in entities)
        assert names.most_common(1)[0][1] == 1


def test_spoken_languages_are_official_nowhere(facts):
    """Otherwise the passage about the official language would entail the answer, too."""
    official = {
        code
        for languages in get_global("territory_languages").values()
        for code, info in languages.items()
        if info["official_status"] in graph.OFFICIAL
    }
    assert not official & {f.subject[1] for f in facts if f.relation == "spoken"}


def test_one_relevant_passage_a_language(corpus):
    """Every test question has exactly one passage of its fact in each language of the pool."""
    pool = Counter(zip(corpus.pool["passage_id"][:], corpus.pool["language"][:], strict=True))
    assert set(pool.values()) == {1}
    for passage in set(corpus.test["passage_id"][:]):
        assert all(pool[passage, language] == 1 for language in ELEVEN)


def test_split_is_by_fact(corpus):
    """No passage of a test fact is trained on, and bridges are trained on."""
    trained, tested = set(corpus.rows["group"][:]), set(corpus.test["group"][:])
    assert not trained & tested
    bridges = {pair.split("<")[1].split("#")[0] for pair in corpus.test["pair"][:] if "<" in pair}
    assert bridges and bridges <= trained


def test_entities_of_test_facts_are_trained_on(facts):
    """Everything a test passage names occurs in a training fact."""
    for fold in range(5):
        test = graph.test_facts(facts, fold, 5)
        trained = {e for f in facts if f.id not in test for e in f.entities}
        assert all(set(f.entities) <= trained for f in facts if f.id in test)


def test_folds_are_disjoint_and_large(facts):
    """Folds test different facts, and each has enough two-hop facts for an interval."""
    folds = [graph.test_facts(facts, k, 5) for k in range(5)]
    assert sum(map(len, folds)) == len(set.union(*folds))
    assert min(map(len, folds)) > 100


def test_two_hop_questions_do_not_name_their_passage(corpus):
    """The question's name neither holds nor is held in a name of the relevant passage."""
    for names, hops in zip(corpus.test["names"][:], corpus.test["hops"][:], strict=True):
        if hops == "2-hop":
            own = names[0].casefold()
            assert not any(own in n.casefold() or n.casefold() in own for n in names[1:])


def test_held_out_wordings_are_never_trained_on(corpus):
    """Questions of the last wording are test questions only; each test question has both."""
    assert {pair[-1] for pair in corpus.rows["pair"][:]} == {"0", "1", "2", "3"}
    wordings = dict(zip(corpus.test["pair"][:], corpus.test["wording"][:], strict=True))
    assert {pair[-1] for pair, w in wordings.items() if w == "held-out"} == {"4"}
    counts = Counter(wordings.values())
    assert counts["seen"] == counts["held-out"]


def test_strata_of_names():
    """Identical, similar and different names, each by hand."""
    from lib.benchmarks.heldout import _alike

    assert _alike("Paris", "paris") == 2
    assert _alike("Norwegian", "Norwegen") == 1
    assert _alike("Deutschland", "Germany") == 0


def test_sentences_are_complete():
    """Every language has every relation: five questions, two passages, right placeholders."""
    for language, relations in cldr.sentences().items():
        texts = []
        for relation, forms in relations.items():
            assert len(forms["question"]) == 1 + cldr.Sentences.trained, (language, relation)
            assert all(q.count("{subject}") == 1 for q in forms["question"])
            if "_" not in relation:
                assert len(forms["passage"]) == 2
                assert all(
                    p.count("{subject}") == p.count("{answers}") == 1 for p in forms["passage"]
                )
            texts += forms["question"] + forms.get("passage", [])
        assert len(texts) == len(set(texts)), language
        assert not any(c.isdigit() for text in texts for c in text)
    assert sorted(cldr.sentences()) == sorted(ELEVEN)


def test_distractors_put_facts_into_one_passage(few):
    """With two distractors a passage tells three facts of one relation, all on one side of the
    split, and each of their questions finds it relevant."""
    told = build(distractors=2, languages=FEW)
    sizes = Counter(len(p.split("+")) for p in set(told.pool["passage_id"][:]))
    assert set(sizes) <= {1, 2, 3} and sizes[3] > 10 * (sizes[1] + sizes[2])
    assert not set(told.rows["group"][:]) & set(told.test["group"][:])
    assert len(told.pool[0]["passage"]) > 2 * len(few.pool[0]["passage"])


def test_pool_size_is_a_knob():
    """`pool` bounds the distractor passages a language; test passages always stay."""
    small = build(pool=50, languages=FEW)
    tested = set(small.test["passage_id"][:])
    for language in FEW:
        own = [
            p
            for p, x in zip(small.pool["passage_id"][:], small.pool["language"][:], strict=True)
            if x == language
        ]
        assert tested <= set(own) and len(own) == len(small.meta and tested | set(own))
        assert len(set(own)) == 50 + small.meta["test_facts"]


def test_removed_cells_never_occur_in_training():
    """A removed (entity, language) cell appears in no training row of that language, and does in
    others."""
    p = Prepare(drop_cells=0.3)
    builder = cldr.Builder(p, ELEVEN, cldr.Sentences())
    entities = {c.id: set(c.entities) for c in builder.chains()}
    seen = defaultdict(set)
    for row in builder.training_rows():
        seen[row["language"]] |= entities[row["pair"].split("#")[0]]
    removed = [
        (e, x) for e in set.union(*entities.values()) for x in ELEVEN if builder.is_dropped(e, x)
    ]
    assert len(removed) > 100
    assert not any(e in seen[x] for e, x in removed)


def test_keep_makes_a_language_scarce(few):
    """`keep` leaves about that share of a language's training pairs, and no other language's."""
    scarce = build(keep={"tr": 0.1}, languages=FEW)
    whole, left = few.meta["counts"]["rows"], scarce.meta["counts"]["rows"]
    assert 0.07 < left["tr"] / whole["tr"] < 0.13
    assert left["de"] == whole["de"] and scarce.meta["counts"]["test"] == few.meta["counts"]["test"]


def test_cards_are_bare_names_in_each_languages_list_pattern():
    """Cards hold the subject and an example, joined as the language joins lists."""
    cards = build(form="cards", languages=["de", "en"])
    texts = dict(
        zip(
            zip(cards.rows["pair"][:], cards.rows["language"][:], strict=True),
            zip(cards.rows["question"][:], cards.rows["passage"][:], strict=True),
            strict=True,
        )
    )
    question, passage = texts["city:Europe/Vienna#0", "de"]
    assert question == "Wien und Japan"
    assert passage in ("Wien und Österreich", "Österreich und Wien")


def test_distinct_languages_drop_twins():
    """Aliases and near-copies are dropped with a reason; over a hundred languages stay."""
    kept, dropped = graph.distinct_languages(0.8)
    assert len(kept) > 100 and not set(kept) & set(dropped)
    for twins in ({"no", "nb", "nn"}, {"fr", "ht"}, {"en", "fil"}):
        assert len(twins & set(kept)) == 1
        assert (twins - set(kept)) <= set(dropped)


def test_unknown_language_is_one_clear_line():
    """A language without sentences is named, with the way out."""
    with pytest.raises(ValueError, match="fr has no sentences.*form: cards"):
        build(languages=["en", "fr"])


def test_same_bytes_in_every_process(tmp_path):
    """Corpus and tokenizer do not depend on hash seeds, threads or the process."""
    code = (
        "import sys; from lib.params import Prepare; from lib.sources.cldr import build_corpus;"
        "from lib.training.tokenizer import tokenizer_texts, train_tokenizer;"
        "c = build_corpus(Prepare(languages=['en', 'hi', 'zh'])); print(c.content_hash);"
        "print(train_tokenizer(tokenizer_texts(c), 3000).to_str())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2)
    ]
    assert outputs[0] == outputs[1]


def test_tokenizer_covers_every_script(corpus, tokenizer):
    """No character of the training texts is unknown."""
    texts = tokenizer_texts(corpus)
    unknown = tokenizer.token_to_id("[UNK]")
    assert not any(unknown in code.ids for code in tokenizer.encode_batch(texts[::7]))


def test_a_held_out_wording_is_made_of_known_tokens(corpus, tokenizer):
    """Chinese and Thai too, which have no spaces: below a tenth of the held-out wording's tokens
    occurs in no training question (a third did, when tokens could run over a whole sentence)."""
    rows, test = corpus.rows.to_pandas(), corpus.test.to_pandas()
    test = test[test["wording"] == "held-out"]
    for language in ("en", "th", "zh"):
        sides = [t[t["language"] == language]["question"].tolist() for t in (rows, test)]
        known, asked = ([i for e in tokenizer.encode_batch(s) for i in e.ids] for s in sides)
        assert asked and np.mean(~np.isin(asked, known)) < 0.1, language


def test_every_language_has_its_axes():
    """Script, family and likeness to English are known for all distinct languages."""
    kept, _ = graph.distinct_languages(0.8)
    table = axes.describe(kept)
    assert (table["family"] != "").all()
    assert table.loc["ru", "script"] == "Cyrl" and table.loc["tr", "family"] == "Turkic"
    assert table.loc["en", "names as in English"] == 1
    assert table.loc["zh", "names as in English"] < 0.05 < table.loc["af", "names as in English"]
