"""What an encoder brings of its own where a study says nothing, and prompts by name.

An encoder that was trained before needs other settings than a new one, and its own prompts: a
default for encoders from scratch would wreck it, or be another model than its name says.
"""

from __future__ import annotations

from typing import Any

FROM_SCRATCH = {"learning_rate": 3e-3, "temperature": 0.1, "max_length": 64, "pooling": "mean"}
# Those of arXiv 2408.10536; pooling, prompts and length are what the checkpoint's files say
# (lib.training.pretrained).
FROM_CHECKPOINT = {"learning_rate": 3e-5, "temperature": 0.05}
# Prompts of its card. Its cosines lie in .7 to 1, and it was trained at a temperature of .01.
E5_SMALL = {
    "learning_rate": 1e-4,
    "temperature": 0.02,
    "max_length": 128,
    "pooling": "mean",
    "question_prompt": "query: ",
    "passage_prompt": "passage: ",
}
NAMED = {"multilingual-e5-small": E5_SMALL, "intfloat/multilingual-e5-small": E5_SMALL}
# What its authors fine-tuned it on, where that is known and matters for what may be claimed.
SEEN = dict.fromkeys(NAMED, "SQuAD, MIRACL, Mr. TyDi, MS MARCO and NQ among others")

NONE = "none"  # no prompt, also where the encoder has one of its own
# Name -> prompts of the two sides, as their cards, or arXiv 2408.10536, have them. The task is the
# one that the instruct kin's card uses for search.
PROMPTS = {
    "multilingual-e5": {"question_prompt": "query: ", "passage_prompt": "passage: "},
    "multilingual-e5-instruct": {
        "question_prompt": "Instruct: Given a web search query, retrieve relevant passages that "
        "answer the query\nQuery: ",
        "passage_prompt": NONE,
    },
    "paper": {"question_prompt": "Query: ", "passage_prompt": "Passage: "},
}


def own(model: Any) -> dict[str, Any]:
    """Parameters of the stage `train` that a model brings: of a name, any checkpoint, or none."""
    if not model or not isinstance(model, str):
        return FROM_SCRATCH
    return NAMED.get(model.partition("@")[0], FROM_CHECKPOINT)


def filled(values: dict[str, Any]) -> dict[str, Any]:
    """Parameters of `train` with the model's own where they are 0, empty or absent, and prompts in
    place of their names. What it returns stays as it is when it is filled again."""
    brought = own(values.get("model"))
    found = dict(values)
    for name, value in brought.items():
        if _is_empty(values.get(name, type(value)()), value):
            found[name] = value
    for side in ("question_prompt", "passage_prompt"):
        text = found.get(side)
        if isinstance(text, str) and text in PROMPTS:
            found[side] = text = PROMPTS[text][side]
        if text == NONE and not values.get("model"):
            found[side] = ""
    return found


def _is_empty(value: Any, of_its_kind: Any) -> bool:
    """Whether it says nothing; what is of another type says something wrong."""
    kinds = (str,) if isinstance(of_its_kind, str) else (int, float)
    return type(value) in kinds and not value
