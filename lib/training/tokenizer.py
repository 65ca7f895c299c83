"""The tokenizer of an encoder trained from scratch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from lib.corpus import ParallelCorpus

TOKENIZER_ROWS = 300_000


def tokenizer_texts(corpus: ParallelCorpus) -> list[str]:
    """The distinct training texts, sorted; of more than TOKENIZER_ROWS rows about so many,
    drawn with a fixed seed: a vocabulary needs no more, and its trainer holds every word."""
    wanted, rng, texts = TOKENIZER_ROWS / len(corpus.rows), np.random.default_rng(0), set()
    for batch in corpus.batches():
        drawn = batch.filter(pa.array(rng.random(len(batch)) < wanted))
        texts.update(*(drawn.column(side).to_pylist() for side in ("question", "passage")))
    return sorted(texts - {""})


def train_tokenizer(texts: Iterable[str], vocabulary: int):
    """A BPE tokenizer (`tokenizers.Tokenizer`) of all characters that occur in `texts`.

    The same texts give the same bytes in every process. Special tokens as BERT's, ids 0 to 4.
    Where no spaces divide words, merges would run over whole sentences, and a new sentence of known
    words be made of tokens never seen: so a Han character is a token (as in multilingual BERT), and
    Thai and Lao are cut before the vowels that begin a syllable."""
    from tokenizers import (
        Regex,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"),
            pre_tokenizers.Split(Regex("[\u0e40-\u0e44\u0ec0-\u0ec4]"), "merged_with_next"),
        ]
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer
