"""Families of encoders with their kinds of tokenizers: trained, resumed, saved, read again."""

import json
import random
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import sentencepiece
import torch
import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
)
from test_trainer import results, stop_after, toy_corpus
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from lib.params import Train
from lib.trainer import Training, train
from lib.training import pretrained
from lib.training.export import save_encoder
from lib.training.identity import identity_of
from lib.training.models import build_encoder, load_encoder
from lib.training.optimizer import shrunk

WIDTH, LAYERS, STEPS = 16, 2, 20
WORDS = "sol luna mar tierra viento fuego hielo piedra arbol hoja rio lago nube flor ave".split()


def rows():
    """Passages have the words of their questions, the other way round."""

    def words(number, language):
        own = random.Random(f"{number} {language}")
        return own.sample([word + language for word in WORDS], 4)

    return [
        {"pair": f"p{i:02d}", "language": code, "passage_id": f"p{i:02d}", "group": f"p{i:02d}"}
        | {"source": "toy", "question": " ".join(words(i, code))}
        | {"passage": " ".join(words(i, code)[::-1])}
        for i in range(24)
        for code in ("de", "en")
    ]


ROWS = rows()
SENTENCES = sorted({row[side] for row in ROWS for side in ("question", "passage")})
TEXTS = [*SENTENCES[:9], "a", "", " ".join(SENTENCES[9:14])]  # the last one is cut


# --- tokenizers --------------------------------------------------------------------------------


def pieces(folder):
    """Pieces and scores of a unigram model that sentencepiece trained, without its special ones."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(folder / "words"),
        vocab_size=120,
        model_type="unigram",
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    words = sentencepiece.SentencePieceProcessor(model_file=str(folder / "words.model"))
    for file in folder.glob("words.*"):
        file.unlink()
    return [(words.IdToPiece(i), words.GetScore(i)) for i in range(3, words.GetPieceSize())]


def xlmr_words(folder):
    """Unigram, numbered as XLM-R does."""
    special = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    return hf.XLMRobertaTokenizer(vocab=[*special, *pieces(folder), ("<mask>", 0.0)])


def t5_words(folder):
    """Unigram, with nothing before a text and </s> behind it."""
    special = [(name, 0.0) for name in ("<pad>", "</s>", "<unk>")]
    return hf.T5Tokenizer(vocab=[*special, *pieces(folder)], extra_ids=3)


def bert_words(folder):
    """WordPiece."""
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    words.train_from_iterator(SENTENCES, trainer)
    return hf.BertTokenizer(vocab=words.get_vocab(), do_lower_case=False)


def bpe(special, before, normalizer=None, **how):
    """BPE trained on the sentences, as `tokenizers` has it."""
    words = Tokenizer(models.BPE(**how))
    words.pre_tokenizer = before
    if normalizer:
        words.normalizer = normalizer
    bytes_ = isinstance(before, pre_tokenizers.ByteLevel)
    alphabet = pre_tokenizers.ByteLevel.alphabet() if bytes_ else []
    trainer = trainers.BpeTrainer(
        vocab_size=350 if bytes_ else 120,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    words.train_from_iterator(SENTENCES, trainer)
    return words


def around(words, single):
    """Put special tokens around each text."""
    named = [(t, words.token_to_id(t)) for t in single.split() if t != "$A"]
    words.post_processor = processors.TemplateProcessing(single=single, special_tokens=named)


def vocabulary(words):
    model = json.loads(words.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def modernbert_words(folder):
    """BPE over bytes, between [CLS] and [SEP]."""
    marks = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    words = bpe([*marks.values()], pre_tokenizers.ByteLevel(add_prefix_space=False))
    words.decoder = decoders.ByteLevel()
    around(words, "[CLS] $A [SEP]")
    return hf.PreTrainedTokenizerFast(tokenizer_object=words, **marks)


def llama_words(folder):
    """BPE over bytes with a token before each text, none behind it and none to pad with."""
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    words = bpe([begin, end], pre_tokenizers.ByteLevel(add_prefix_space=False))
    words.decoder = decoders.ByteLevel()
    around(words, f"{begin} $A")
    return hf.PreTrainedTokenizerFast(tokenizer_object=words, bos_token=begin, eos_token=end)


def qwen_words(folder):
    """BPE over bytes with no special token in a text."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = bpe(special, pre_tokenizers.ByteLevel(add_prefix_space=False))
    return hf.Qwen2Tokenizer(**vocabulary(words), eos_token="<|im_end|>")


def mistral_words(folder):
    """BPE with spaces as a letter of their own, <s> before a text, none to pad with."""
    how = {"unk_token": "<unk>", "byte_fallback": True}
    words = bpe(["<unk>", "<s>", "</s>"], pre_tokenizers.Metaspace(split=False), **how)
    return hf.LlamaTokenizer(**vocabulary(words), add_bos_token=True, add_eos_token=False)


def gemma_words(folder):
    """The same with other special tokens, and spaces made letters by the normaliser."""
    how = {"unk_token": "<unk>", "byte_fallback": True}
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    space = normalizers.Replace(" ", "\u2581")
    words = bpe(special, pre_tokenizers.Split(" ", "merged_with_previous"), space, **how)
    made = hf.GemmaTokenizer(**vocabulary(words))
    around(made.backend_tokenizer, "<bos> $A")
    return made


# --- checkpoints -------------------------------------------------------------------------------


class Family(NamedTuple):
    """kind: a class of transformers that is saved, of its configuration `more` beside the sizes;
    rows: of the word table, where it has more than the tokenizer."""

    words: object
    kind: str
    more: dict = {}
    rows: int = 0
    width: int = WIDTH


T5 = {"d_kv": 8, "d_ff": 32, "num_decoder_layers": 1, "decoder_start_token_id": 0}
T5 |= {"max_position_embeddings": None}  # theirs are relative
GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
SLIDING = {"sliding_window": 8, "query_pre_attn_scalar": 8}
STEADY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
FAMILIES = {
    "xlm-r": Family(xlmr_words, "XLMRobertaForMaskedLM"),
    "xlm-v": Family(xlmr_words, "XLMRobertaModel", STEADY, 70_001, 8),
    "xlm-r-xl": Family(xlmr_words, "XLMRobertaXLModel"),
    "bert": Family(bert_words, "BertModel"),
    "labse": Family(bert_words, "BertModel", STEADY),
    "modernbert": Family(modernbert_words, "ModernBertModel", {"global_attn_every_n_layers": 2}),
    "mt5": Family(t5_words, "MT5ForConditionalGeneration", T5, 300),
    "t5": Family(t5_words, "T5ForConditionalGeneration", T5),
    "mistral": Family(mistral_words, "MistralForCausalLM", GROUPED | {"sliding_window": 8}),
    "llama": Family(llama_words, "LlamaForCausalLM", GROUPED),
    "qwen2": Family(qwen_words, "Qwen2ForCausalLM", {"num_key_value_heads": 1}),
    "qwen3": Family(qwen_words, "Qwen3ForCausalLM", GROUPED),
    "gemma": Family(gemma_words, "GemmaForCausalLM", GROUPED),
    "gemma2": Family(gemma_words, "Gemma2ForCausalLM", GROUPED | SLIDING),
    "gemma3": Family(gemma_words, "Gemma3ForCausalLM", GROUPED | SLIDING),
}
DECODERS = ("mistral", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3")
RELATIVE = ("modernbert", "mt5", "t5", *DECODERS)  # no table of positions


def save(family, folder, **changes):
    """A tiny random checkpoint."""
    words, kind = family.words(folder), getattr(hf, family.kind)
    marks = (f"{mark}_token_id" for mark in ("pad", "bos", "eos", "cls", "sep"))
    special = {mark: getattr(words, mark) for mark in marks}
    sizes = {"hidden_size": family.width, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 40}
    sizes |= {"vocab_size": family.rows or len(words), "initializer_range": 0.1}
    config = kind.config_class(**sizes | special | family.more | changes)
    torch.manual_seed(3)
    kind(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def labse(plain, folder):
    """As it is published: CLS, a matrix and tanh, in a folder of sentence-transformers."""
    chain = [Transformer(plain, max_seq_length=20), Pooling(WIDTH, "cls")]
    chain += [Dense(WIDTH, WIDTH, activation_function=torch.nn.Tanh()), Normalize()]
    SentenceTransformer(modules=chain, device="cpu").save(str(folder))
    return str(folder)


def asked(model, **more):
    """A short run of it."""
    values = {"model": model, "steps": STEPS, "batch_size": 8, "max_length": 20, "log_every": 1}
    values |= {"strategy": "mono", "learning_rate": 1e-2, "temperature": 0.1, "checkpoint_every": 8}
    values |= {"question_prompt": "ave ", "passage_prompt": "rio mar "}
    return Train(**values | more)


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """name -> its checkpoint, made once."""
    found = {}

    def of(name):
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            found[name] = save(FAMILIES[name], folder)
            if name == "labse":
                found[name] = labse(found[name], folder / "sentence")
        return found[name]

    return of


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return toy_corpus(tmp_path_factory.mktemp("corpus") / "data", ROWS)


@pytest.fixture(scope="module")
def run(name, made, corpus, tmp_path_factory):
    """The folder of a run of the family that nobody disturbed."""
    folder = tmp_path_factory.mktemp(f"run-{name}")
    train(corpus, asked(made(name)), folder)
    return folder


# --- each family -------------------------------------------------------------------------------


def test_it_learns(run):
    """By more than batches differ, and below chance, where all vectors are the same."""
    loss = pd.read_parquet(run / "train_log.parquet")["loss"]
    assert len(loss) == STEPS
    assert loss[-5:].mean() < min(0.9 * loss[:5].mean(), 0.9 * np.log(8))


def test_a_stopped_run_ends_with_the_same_bits(run, name, made, corpus, tmp_path):
    """After steps that no checkpoint has."""
    p = asked(made(name))
    stop_after(corpus, tmp_path, 11, p)
    train(corpus, p, tmp_path)
    assert results(tmp_path) == results(run)


def test_saved_and_read_again(run, name, made, tmp_path, capsys):
    """To the bit here, to 1e-5 in sentence-transformers; and as it is what is trained on next.
    Nothing is set and said again."""
    encoder = load_encoder(run / "model")
    save_encoder(encoder, tmp_path)
    again = load_encoder(tmp_path)
    onwards = build_encoder(Train(model=str(tmp_path)), None)
    theirs = SentenceTransformer(str(run / "model"), device="cpu")
    for kind, side in (("question", "query"), ("passage", "document")):
        vectors = encoder.encode(TEXTS, kind)
        assert np.array_equal(vectors, again.encode(TEXTS, kind))
        assert np.array_equal(vectors, onwards.encode(TEXTS, kind))
        expected = theirs.encode(TEXTS, prompt_name=side)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-2)
    start = build_encoder(asked(made(name)), None).encode(TEXTS, kind)
    assert not np.allclose(vectors, start, atol=1e-2)
    capsys.readouterr()
    load_encoder(run / "model"), build_encoder(Train(model=str(run / "model")), None)
    assert capsys.readouterr().out == ""


def test_vectors_are_those_of_plain_transformers(name, made):
    """Each text alone, by the model that transformers itself loads, pooled by hand."""
    encoder = build_encoder(asked(made(name)), None)
    folder = made(name)
    halves = name in ("t5", "mt5")
    plain = (hf.AutoModelForTextEncoding if halves else hf.AutoModel).from_pretrained(folder).eval()
    pooled = {"cls": lambda x: x[0], "lasttoken": lambda x: x[-1], "mean": lambda x: x.mean(0)}
    expected = []
    for ids in encoder.tokenize(TEXTS, "passage"):
        with torch.no_grad():
            states = plain(input_ids=torch.from_numpy(ids).long()[None]).last_hidden_state[0]
            vector = encoder.dense(pooled[encoder.settings.pooling](states))
        expected.append(torch.nn.functional.normalize(vector, dim=-1).numpy())
    np.testing.assert_allclose(encoder.encode(TEXTS, "passage"), expected, atol=2e-6)
    by_default = {"labse": "cls"} | dict.fromkeys(DECODERS, "lasttoken")
    assert encoder.settings.pooling == by_default.get(name, "mean")


def test_its_first_layers(name, made):
    """As all of them, cut by hand; and not as all of them."""
    cut, full = (build_encoder(asked(made(name), layers_kept=n), None) for n in (1, 0))
    whole = full.encode(TEXTS, "question")
    lists = [
        (module, field, value)
        for module in full.model.modules()
        for field, value in module.named_children()
        if isinstance(value, torch.nn.ModuleList)
    ]
    stack, field, layers = lists[0]  # the outermost
    assert len(layers) == LAYERS
    setattr(stack, field, layers[:1])
    full.model.config.num_hidden_layers = 1
    vectors = cut.encode(TEXTS, "question")
    assert np.array_equal(vectors, full.encode(TEXTS, "question"))
    assert not np.allclose(vectors, whole, atol=1e-2)


def test_who_sees_what_is_to_the_right(name, made):
    """In an encoder all tokens, in a decoder none."""
    encoder = build_encoder(asked(made(name)), None)
    ids = encoder.tokenize(SENTENCES[3:4], "passage")[0]
    ids = torch.from_numpy(np.stack([ids, ids])).long()
    ids[1, -1] = ids[1, 2]
    with torch.no_grad():
        words = encoder.words(ids)
        one, other = encoder.model(
            inputs_embeds=words, attention_mask=torch.ones_like(ids)
        ).last_hidden_state[:, :-1]
    assert torch.allclose(one, other, atol=1e-6) == (name in DECODERS)


def test_only_used_words_are_trained(name, made, corpus, run, tmp_path):
    """A table of 900,000 rows is not in the way. Gemma's tables scale what they give, so that they
    stay whole."""
    p = asked(made(name))
    running = Training(corpus, p, tmp_path, identity_of(corpus, p, None))
    rows = running.encoder.words.weight.shape[0]
    start = build_encoder(p, None).words.weight
    if name.startswith("gemma"):
        assert rows == len(start)
        return
    assert rows == len(running.texts.used) < len(start)
    trained = load_encoder(run / "model").words.weight
    unused = np.setdiff1d(np.arange(len(start)), running.texts.used)
    assert torch.equal(trained[unused], start[unused] * shrunk(p, STEPS))
    assert len(trained) == len(start) >= FAMILIES[name].rows
    assert not torch.allclose(trained[running.texts.used], start[running.texts.used], atol=1e-3)


# --- padding, ends, what is set ----------------------------------------------------------------


@pytest.mark.parametrize("name", RELATIVE)
@pytest.mark.parametrize("pooling", ["lasttoken", "mean"])
def test_the_side_of_the_padding_does_not_matter(name, made, pooling):
    """Where positions are relative; for tables of them lib.encoder pads on the right."""
    encoder = build_encoder(asked(made(name), pooling=pooling), None)
    tokens = encoder.tokenize(TEXTS, "question")
    right, mask = encoder.padded(tokens)
    left = torch.full_like(right, 5)  # any token: it is masked
    for row, ids in zip(left, tokens, strict=True):
        row[-len(ids) :] = torch.from_numpy(ids)
    with torch.no_grad():
        found, expected = encoder(left, mask.flip(1)), encoder(right, mask)
    torch.testing.assert_close(found, expected, atol=3e-6, rtol=0)
    assert len({len(ids) for ids in tokens}) > 2


def test_what_a_decoder_lacks_is_set_and_said(made, capsys):
    """A line for each; a text that is cut, and an empty one, end as the others."""
    encoder = build_encoder(asked(made("mistral")), None)
    own, end = encoder.tokenizer, encoder.tokenizer.eos_token_id
    assert own.pad_token_id == end
    for ids in encoder.tokenize(TEXTS, "question"):
        assert (ids[0], ids[-1]) == (own.bos_token_id, end) and end not in ids[:-1]
    assert len(encoder.tokenize(TEXTS[-1:], "question")[0]) == 20 and encoder.truncated == 2
    found = encoder.model(inputs_embeds=torch.zeros(1, 3, WIDTH))
    assert found.past_key_values is None  # nothing goes on from these texts
    one, other = capsys.readouterr().out.splitlines()
    assert "its tokenizer names no token to pad with; </s> is taken" in one
    assert "texts do not end in </s> by themselves; now they do" in other


def test_texts_that_end_in_a_special_token_stay_as_they_are(tmp_path, capsys):
    """Also where it is not EOS, as in Qwen3's embedding models."""

    def words(folder):
        made = qwen_words(folder)
        around(made.backend_tokenizer, "$A <|endoftext|>")
        return made

    folder = save(FAMILIES["qwen3"]._replace(words=words), tmp_path)
    encoder = build_encoder(asked(folder), None)
    [ids] = encoder.tokenize(["sol"], "passage")
    assert encoder.tokenizer.convert_ids_to_tokens(ids)[-1] == "<|endoftext|>"
    assert encoder.tokenizer.eos_token_id not in ids
    assert capsys.readouterr().out == ""


def test_a_decoder_of_sentence_transformers_is_applied_as_published(made, tmp_path, capsys):
    """Without an end, as its vectors are made there, with padding on the left."""
    bare = Transformer(made("gemma2"), max_seq_length=20)
    chain = [bare, Pooling(WIDTH, "lasttoken"), Normalize()]
    theirs = SentenceTransformer(modules=chain, device="cpu")
    theirs.save(str(tmp_path))
    assert bare.tokenizer.padding_side == "left"
    encoder = build_encoder(Train(model=str(tmp_path)), None)
    assert encoder.settings.pooling == "lasttoken"
    vectors = encoder.encode(TEXTS, "question")
    np.testing.assert_allclose(vectors, theirs.encode(TEXTS), atol=1e-5)
    assert capsys.readouterr().out == ""


def test_a_gemma_that_sees_all_is_no_decoder(tmp_path, capsys):
    """As EmbeddingGemma: a mean, and no end is put behind a text."""
    folder = save(FAMILIES["gemma3"], tmp_path, use_bidirectional_attention=True)
    encoder = build_encoder(asked(folder), None)
    assert encoder.settings.pooling == "mean" and capsys.readouterr().out == ""
    ids = torch.from_numpy(encoder.tokenize(SENTENCES[:1], "passage")[0]).long()[None].repeat(2, 1)
    ids[1, -1] = ids[1, 1]
    with torch.no_grad():
        one, other = encoder.model(inputs_embeds=encoder.words(ids)).last_hidden_state[:, 0]
    assert not torch.allclose(one, other, atol=1e-6)


# --- bad input ---------------------------------------------------------------------------------


def refused(model, said, **more):
    with pytest.raises(ValueError, match=said) as error:
        build_encoder(asked(model, **more), None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_a_checkpoint_without_tokenizer_is_refused(name, tmp_path):
    """transformers makes an empty one of these types; it is said before anything runs."""
    model = save(FAMILIES[name], tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    refused(model, r"has no tokenizer \(expected tokenizer.json")
    with pytest.raises(ValueError, match="has no tokenizer"):
        pretrained.check(asked(model))


def test_words_beyond_the_table_are_refused(tmp_path):
    """Of a tokenizer that is another model's, or was added to; a special token that nothing
    writes may be there, as in Gemma 3."""
    words = bert_words(tmp_path)
    short = save(FAMILIES["bert"], tmp_path / "short", vocab_size=len(words) - 3)
    refused(short, f"beyond the table of {len(words) - 3} word vectors, by 3 from '")
    model = save(FAMILIES["bert"], tmp_path / "added")
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    words.save_pretrained(model)
    build_encoder(asked(model), None)
    words.add_tokens(["nueva"])
    words.save_pretrained(model)
    refused(model, "beyond the table of .* word vectors, by 1 from 'nueva' on")


def test_tokenizers_that_cannot_end_or_pad_are_refused(tmp_path):
    """There is nothing to take."""

    def without(folder, **marks):
        words = llama_words(folder)
        return hf.PreTrainedTokenizerFast(tokenizer_object=words.backend_tokenizer, **marks)

    family = FAMILIES["llama"]._replace(words=without)
    refused(save(family, tmp_path / "a", bos_token_id=None, eos_token_id=None), "no token to pad")
    padded = family._replace(words=lambda folder: without(folder, pad_token="<|end_of_text|>"))
    refused(save(padded, tmp_path / "b"), "does not end texts .expected an EOS token")


def test_settings_that_do_not_fit_a_decoder_are_refused(made):
    """Positions that it has none for; the first token, which sees no other."""
    refused(made("llama"), "expected more than 2 .* and at most 40", max_length=41)
    refused(made("modernbert"), "expected more than 2 .* and at most 40", max_length=41)
    refused(
        made("llama"), "is a decoder, train.pooling is 'cls' .expected lasttoken", pooling="cls"
    )
    assert build_encoder(asked(made("t5"), max_length=60), None).settings.max_length == 60


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_checkpoint_is_refused(file, tmp_path):
    """Also where transformers has a class of that type, which may be another model."""
    model = save(FAMILIES["qwen2"], tmp_path)
    content = json.loads((tmp_path / file).read_text())
    code = {"auto_map": {"AutoModel": "modeling_mine.Mine"}}
    (tmp_path / file).write_text(json.dumps(content | code))
    refused(model, f"brings code of its own .auto_map in {file}., which is not run .expected")
