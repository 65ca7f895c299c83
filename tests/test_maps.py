"""Maps of languages: hand arithmetic, what a rotation leaves as it is, and runs that train, stop,
go on, are saved and loaded with them."""

import numpy as np
import pytest
import torch
from test_trainer import results, stop_after
from test_validation import corpus_with_held_out

from lib import benchmarks, metrics, search
from lib.params import BadParameter, BenchmarkSpec, Train, checked
from lib.trainer import Training, train
from lib.training import maps
from lib.training.identity import identity_of
from lib.training.models import build_encoder, load_encoder
from lib.training.validation import validate


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return corpus_with_held_out(tmp_path_factory.mktemp("corpus") / "data")


def asked(**more):
    return Train(
        **{"width": 16, "steps": 10, "batch_size": 8, "max_length": 16, "seed": 3}
        | {"checkpoint_every": 3, "log_every": 1}
        | more
    )


def made(corpus, tmp_path, **more):
    """(training run before its first step, its encoder)."""
    p = asked(**more)
    run = Training(corpus, p, tmp_path, identity_of(corpus, p, None))
    return run, run.encoder


def untrained(corpus, folder, **more):
    """The encoder before training, as it is saved and loaded."""
    train(corpus, asked(**more, steps=0), folder)
    return load_encoder(folder / "model")


# --- arithmetic --------------------------------------------------------------------------------


def test_each_row_gets_the_map_of_its_language():
    """A v + b to unit length, by hand, in the order given; a gradient reaches the vectors."""
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    both = maps.LanguageMaps(
        ["de", "en"], np.stack([np.eye(2), quarter]), np.array([[0.0, 2.0], [0.0, 0.0]])
    )
    vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]], requires_grad=True)
    found = both(vectors, np.array([1, 1, 0]))
    expected = [[0.0, 1.0], [-0.8, 0.6], np.array([1.0, 2.0]) / 5**0.5]
    torch.testing.assert_close(found, torch.tensor(np.array(expected), dtype=torch.float32))
    found[1].sum().backward()
    assert vectors.grad[1].any() and not vectors.grad[[0, 2]].any()
    with pytest.raises(ValueError, match="language 'xx' has no map .expected de, en"):
        both.numbers(["en", "xx"])


@pytest.mark.parametrize("width", [2, 7, 16])
def test_a_rotation_is_a_step_on_a_line(width):
    """Orthogonal, of determinant 1, from the identity on; two halves are a whole; its plane turns
    evenly; another language or seed turns otherwise."""

    def at(angle, seed=0, code="en"):
        return maps.rotation(width, angle, seed, code)

    whole = at(1)
    np.testing.assert_allclose(at(0), np.eye(width), atol=1e-12)
    np.testing.assert_allclose(whole @ whole.T, np.eye(width), atol=1e-9)
    assert np.linalg.det(whole) == pytest.approx(1)
    np.testing.assert_allclose(at(0.5) @ at(0.5), whole, atol=1e-9)
    np.testing.assert_allclose(at(0.2) @ at(0.8), whole, atol=1e-9)
    angles = np.sort(np.abs(np.angle(np.linalg.eigvals(at(0.3)))))
    np.testing.assert_allclose(
        angles, 0.3 * np.sort(np.abs(np.angle(np.linalg.eigvals(whole)))), atol=1e-7
    )
    assert min(abs(at(1, 1) - whole).max(), abs(at(1, 0, "de") - whole).max()) > 0.05


def test_what_is_projected_away_is_gone():
    """Rows on a line plus little: the line goes; against SVD's definition by eigenvectors."""
    generator = np.random.default_rng(0)
    line = np.array([3.0, 4.0, 0.0]) / 5
    vectors = generator.normal(size=(50, 1)) * line + 1e-3 * generator.normal(size=(50, 3))
    away = np.eye(3) - maps.spanned(vectors, 1)
    assert abs(away @ line).max() < 1e-3
    values, axes = np.linalg.eigh(vectors.T @ vectors)
    two = axes[:, np.argsort(values)[1:]]
    np.testing.assert_allclose(maps.spanned(vectors, 2), two @ two.T, atol=1e-9)


# --- of encoders -------------------------------------------------------------------------------


def scores(encoder, corpus):
    """mAP by setting on the held-out questions."""
    own = benchmarks.load_benchmark("heldout", BenchmarkSpec(format="heldout"), corpus)
    sides = (("question", own.questions), ("passage", own.candidates))
    vectors = [
        maps.of_texts(
            encoder, encoder.vectors(encoder.tokenize(list(t["text"]), kind)), t["language"]
        )
        for kind, t in sides
    ]
    table = metrics.question_scores(own, search.relevant_ranks(search.tiles(*vectors), own))
    return metrics.summary(table)["ap"]


def test_rotations_leave_monolingual_retrieval_as_it_is(corpus, tmp_path):
    """mono is unchanged at any angle, cross falls as it grows."""
    found = [
        scores(untrained(corpus, tmp_path / f"{angle}", maps="rotated", angle=angle), corpus)
        for angle in (0.0, 0.3, 1.0)
    ]
    plain = scores(untrained(corpus, tmp_path / "plain"), corpus)
    assert found[0].equals(plain)
    assert all(one["mono"] == pytest.approx(plain["mono"], abs=1e-4) for one in found)
    assert found[2]["cross"] < found[0]["cross"]


def test_means_and_directions_are_those_of_training_passages(corpus, tmp_path):
    """A centred language has mean zero (all passages of a small corpus are asked); a projected one
    nothing along its first singular vector."""
    _, encoder = made(corpus, tmp_path, maps="centred", steps=0)
    languages, texts = corpus.index.languages, {}
    for number, code in enumerate(languages):
        pairs = np.flatnonzero(corpus.index.patterns[corpus.index.pattern, number])
        rows = corpus.index.rows(pairs, np.full(len(pairs), number))
        texts[code] = [corpus.rows["passage"][:][row] for row in rows]
    assert max(map(len, texts.values())) <= maps.TEXTS
    vectors = {c: encoder.vectors(encoder.tokenize(t, "passage")) for c, t in texts.items()}
    for number, code in enumerate(languages):
        np.testing.assert_allclose(encoder.maps.shift[number], -vectors[code].mean(0), atol=1e-6)
    _, other = made(corpus, tmp_path / "p", maps="projected", directions=1, steps=0)
    for number, code in enumerate(languages):
        first = np.linalg.svd(vectors[code].astype(float))[2][0]
        assert abs(other.maps.matrix[number].numpy() @ first).max() < 1e-5


@pytest.mark.parametrize("kind", ["rotated", "free"])
def test_training_sees_them_and_a_kill_changes_nothing(corpus, tmp_path, kind):
    """Same bits after a stop; free maps have moved, rotated ones not; what is saved is what is
    loaded; the loss differs from a run without."""
    p = asked(maps=kind, angle=0.4)
    whole = train(corpus, p, tmp_path / "whole")
    stop_after(corpus, tmp_path / "cut", 5, p)
    train(corpus, p, tmp_path / "cut")
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    encoder = load_encoder(tmp_path / "whole" / "model")
    before = made(corpus, tmp_path / "new", maps=kind, angle=0.4)[1].maps
    assert encoder.maps.languages == before.languages == corpus.index.languages
    assert torch.equal(encoder.maps.matrix, before.matrix) == (kind == "rotated")
    plain = train(corpus, asked(), tmp_path / "plain")
    assert whole.log["loss"].iloc[0] != plain.log["loss"].iloc[0]
    assert whole.exposure["flops"] == plain.exposure["flops"]  # a map is applied once a text
    assert scores(encoder, corpus)["mono"] > 0


def test_maps_are_where_the_encoder_is(corpus, tmp_path):
    """On another device too."""
    run, encoder = made(corpus, tmp_path, maps="rotated", angle=0.4)
    encoder.to("meta")
    maps.put_in(encoder, run.params, run.texts, run.index)
    assert {part.device.type for part in (encoder.maps.matrix, encoder.maps.shift)} == {"meta"}


def test_chunks_have_the_gradient_of_the_whole(corpus, tmp_path):
    losses = []
    for chunk in (0, 3):
        run, encoder = made(corpus, tmp_path / f"{chunk}", maps="free", angle=0.4, chunk=chunk)
        run.loss(run.schedule.batch(0)).backward()
        losses.append(encoder.maps.matrix.grad)
    assert losses[0].abs().max() > 0
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-7)


def test_validation_applies_them(corpus, tmp_path):
    own = benchmarks.load_benchmark("heldout", BenchmarkSpec(format="heldout"), corpus)
    plain, turned = (
        validate(untrained(corpus, tmp_path / f"{angle}", maps="rotated", angle=angle), own)
        for angle in (0.0, 1.0)
    )
    assert turned["mono"] == pytest.approx(plain["mono"], abs=1e-4)
    assert turned["cross"] < plain["cross"]


# --- refusals ----------------------------------------------------------------------------------


def test_nobody_gets_vectors_without_their_maps(corpus, tmp_path):
    """Texts without a language, another program, and fine-tuning are refused."""
    train(corpus, asked(maps="rotated", angle=0.4, steps=1), tmp_path)
    model = tmp_path / "model"
    with pytest.raises(ValueError, match="a map for each language embeds no text without one"):
        load_encoder(model).encode(["a"], "question")
    with pytest.raises(ValueError, match="has a map for each language behind it"):
        build_encoder(asked(model=str(model)), corpus.tokenizer_file)
    sentence_transformers = pytest.importorskip("sentence_transformers")
    with pytest.raises(Exception, match="LanguageMaps"):
        sentence_transformers.SentenceTransformer(str(model), device="cpu")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"angle": 0.5}, "train.angle: 0.5 does not go with maps '' .expected rotated or free"),
        ({"maps": "projected"}, "train.directions: 0 does not go with maps 'projected'"),
        ({"maps": "free", "directions": 1}, "train.directions: 1 does not go with maps 'free'"),
        ({"maps": "turned"}, "train.maps: 'turned' is unknown"),
    ],
)
def test_bad_parameters(values, words):
    with pytest.raises(BadParameter, match=words):
        checked(Train, values)
