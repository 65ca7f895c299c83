"""Decoders as encoders: a token sees those before it alone, so that the last one stands for a text.

Where a checkpoint does not say how its texts end, they end in EOS, as in E5-mistral (Wang et al.,
arXiv 2401.00368) and RepLLaMA (Ma et al., arXiv 2310.08319): else the vector would be read at
another word each time. The saved tokenizer does so by itself. No torch is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Types of `transformers` that tests train, save and load.
KINDS = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3")
POOLING = "lasttoken"  # where nobody says another one


def is_causal(config: dict[str, Any]) -> bool:
    """Whether tokens see those before them alone, by a config.json (EmbeddingGemma's see all)."""
    return config.get("model_type") in KINDS and not config.get("use_bidirectional_attention")


def end_with_eos(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Let the tokenizer put its EOS token behind a text, unless it ends in a special token already.

    Raises ValueError in one line for a tokenizer without EOS, or one of another form."""
    from tokenizers.processors import TemplateProcessing

    words, eos = tokenizer.backend_tokenizer, tokenizer.eos_token
    empty, some = words.encode(""), words.encode("a")
    if some.special_tokens_mask[-1]:
        return
    if eos is None or some.ids[: len(empty.ids)] != empty.ids:
        raise ValueError(
            f"model {name!r}: its tokenizer does not end texts (expected an EOS token, and nothing "
            "else behind a text)"
        )
    own = zip(empty.tokens, empty.ids, strict=True)  # all before the text, as BOS
    words.post_processor = TemplateProcessing(
        single=[*empty.tokens, "$A", eos], special_tokens=[*own, (eos, tokenizer.eos_token_id)]
    )
    print(f"model {name!r}: texts do not end in {eos} by themselves; now they do", flush=True)
