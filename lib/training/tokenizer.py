"""The tokenizer of an encoder trained from scratch."""

from __future__ import annotations

from collections.abc import Iterable


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
