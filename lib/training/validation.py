"""Retrieval on questions set aside for it, while an encoder is trained.

They are a share of the held-out split (prepare.dev) that no evaluation asks, so that choosing a
checkpoint by them says nothing of the questions that results are about.
"""

from __future__ import annotations

from lib import metrics, search
from lib.benchmark import Benchmark
from lib.encoder import Encoder
from lib.metrics import SETTINGS
from lib.training import maps, ranks, sharding


def validate(encoder: Encoder, benchmark: Benchmark) -> dict[str, float]:
    """mAP by setting (macro means over language pairs), and "map": the mean over the settings that
    there are, by which a checkpoint is judged.

    All ranks call this; the first finds it for all, where none has but a part of the encoder."""
    works = not ranks.rank() or sharding.has_parts(encoder)
    return ranks.collected(_scores(encoder, benchmark) if works else None)[0]


def _scores(encoder: Encoder, benchmark: Benchmark) -> dict[str, float]:
    sides = {"question": benchmark.questions, "passage": benchmark.candidates}
    tokens = [encoder.tokenize(list(side["text"]), kind) for kind, side in sides.items()]
    languages = [side["language"] for side in sides.values()]
    vectors = (
        maps.of_texts(encoder, encoder.vectors(own), language)
        for own, language in zip(tokens, languages, strict=True)
    )
    places = search.relevant_ranks(search.tiles(*vectors), benchmark)
    ap = metrics.summary(metrics.question_scores(benchmark, places))["ap"]
    scores = {setting: float(ap[setting]) for setting in SETTINGS if setting in ap.index}
    return scores | {"map": sum(scores.values()) / len(scores)}


def best_of(validations: list[dict]) -> dict:
    """The first of the best validations."""
    return max(validations, key=lambda validation: validation["map"])


def patience_is_over(validations: list[dict], patience: int) -> bool:
    """Whether `patience` validations in a row were no better than the best before them."""
    return 0 < patience < len(validations) and (best_of(validations) not in validations[-patience:])
