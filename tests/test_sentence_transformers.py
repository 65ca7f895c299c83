"""HybridBatchSampler in the real trainer of sentence-transformers, alone and on two processes.

Batches are read where they count: at the loss, from token numbers. Every text is one token of its
own, so they say which text it was.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.corpus import ParallelCorpus
from lib.sampler import ARMS, Schedule

ROOT = Path(__file__).parents[1]
MISSING = [name for name in ("sentence_transformers", "accelerate") if not find_spec(name)]
if MISSING and __name__ != "__main__":
    pytest.skip(
        f"not installed: {', '.join(MISSING)}; nothing of sentence-transformers' trainer is tested",
        allow_module_level=True,
    )

LANGUAGES, PAIRS, BATCH, STEPS, HALF = ("de", "en", "th"), 40, 8, 8, 5
EXAMPLE = """\
from pathlib import Path
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments, losses
from lib.corpus import ParallelCorpus
from lib.hybrid_batch_sampler import HybridBatchSampler, scheduled
from lib.sampler import Schedule

corpus = ParallelCorpus.load(Path("outputs/quick/corpus/seed=0/data"))
schedule = Schedule(corpus.index, "hybrid", alpha=0.5, batch_size=64, steps=100, seed=1)
model = SentenceTransformer("intfloat/multilingual-e5-small")
loss = losses.MultipleNegativesRankingLoss(model)  # gather_across_devices=True on many
args = SentenceTransformerTrainingArguments(
    "out", num_train_epochs=1, per_device_train_batch_size=64, batch_sampler=HybridBatchSampler
)
SentenceTransformerTrainer(model, args, scheduled(corpus, schedule), loss=loss).train()
"""


# ---- what is trained ----


def corpus() -> ParallelCorpus:
    """40 pairs in three languages, two pairs a group, each naming two others as negatives."""
    rows = [
        {
            "pair": f"p{pair:02}",
            "language": language,
            "question": f"q{pair:02}{language}",
            "passage": f"a{pair:02}{language}",
            "passage_id": f"a{pair:02}",
            "group": f"g{pair // 2:02}",
            "source": "test",
            "negatives": [f"a{(pair + 2) % PAIRS:02}", f"a{(pair + 4) % PAIRS:02}"],
        }
        for pair in range(PAIRS)
        for language in LANGUAGES
    ]
    return ParallelCorpus.from_rows(rows, {})


def save_model(folder: Path, dropout: float = 0.0) -> None:
    """A tiny SentenceTransformer with random weights, whose tokenizer knows whole texts."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    texts = [text for row in corpus().rows for text in (row["question"], row["passage"])]
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *texts])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=8
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(16)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))


class Run:
    """One trainer on the schedule, and the texts of each column that its loss saw."""

    def __init__(self, model: Path, out: Path, schedule: Schedule, ranks: int = 1, **arguments):
        from sentence_transformers import (
            SentenceTransformer,
            SentenceTransformerTrainer,
            SentenceTransformerTrainingArguments,
            losses,
        )

        from lib.hybrid_batch_sampler import HybridBatchSampler, scheduled

        seen = self.seen = []

        class Loss(losses.MultipleNegativesRankingLoss):
            def forward(self, features, labels=None):
                features = list(features)
                ids = [f["input_ids"][:, 0].tolist() for f in features]
                seen.append([tokenizer.convert_ids_to_tokens(column) for column in ids])
                return super().forward(features, labels)

        texts = corpus()
        schedule = make_schedule(texts, **schedule)
        self.model = SentenceTransformer(str(model), device="cpu")
        tokenizer = self.model.tokenizer
        args = SentenceTransformerTrainingArguments(
            str(out),
            num_train_epochs=1,
            per_device_train_batch_size=BATCH // ranks,
            batch_sampler=HybridBatchSampler,
            use_cpu=True,
            learning_rate=1e-2,
            report_to="none",
            disable_tqdm=True,
            **{"save_strategy": "no"} | arguments,
        )
        loss = Loss(self.model, gather_across_devices=ranks > 1)
        self.trainer = SentenceTransformerTrainer(
            self.model, args, scheduled(texts, schedule), loss=loss
        )

    def train(self, **arguments) -> "Run":
        self.trainer.train(**arguments)
        return self

    @property
    def weights(self) -> np.ndarray:
        return np.concatenate([p.detach().numpy().ravel() for p in self.model.parameters()])


def make_schedule(texts: ParallelCorpus, strategy: str = "hybrid", **rest) -> Schedule:
    return Schedule(
        texts.index, strategy, **{"batch_size": BATCH, "steps": STEPS, "seed": 1} | rest
    )


def expected(rank: int = 0, ranks: int = 1, **schedule) -> list[list[list[str]]]:
    """Texts [step][column] of the rank's part of each batch, spelt out from the schedule."""
    found = []
    for batch in make_schedule(corpus(), **schedule):
        part = batch.part(rank, ranks)
        asked = [LANGUAGES[i] for i in part.question_language]
        answered = [LANGUAGES[i] for i in part.passage_language]
        columns = [("q", part.pair, asked), ("a", part.pair, answered)]
        columns += [("a", negative, answered) for negative in part.negatives.T]
        found.append(
            [
                [f"{side}{pair:02}{name}" for pair, name in zip(pairs, names, strict=True)]
                for side, pairs, names in columns
            ]
        )
    return found


# ---- one process ----


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A saved model without dropout."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder)
    return folder


@pytest.fixture(scope="module")
def dropping(tmp_path_factory) -> Path:
    """The same model with dropout, so that random numbers count."""
    folder = tmp_path_factory.mktemp("dropping")
    save_model(folder, dropout=0.2)
    return folder


@pytest.mark.parametrize("strategy", list(ARMS))
def test_the_loss_sees_the_batches_of_the_schedule(model, tmp_path, strategy):
    """In every arm, in order, all of them; composition is read off the texts themselves."""
    seen = Run(model, tmp_path, {"strategy": strategy}).train().seen
    assert seen == expected(strategy=strategy)
    kinds = set()
    for asked, answered in seen:
        groups = [int(text[1:3]) // 2 for text in asked]
        assert len(set(groups)) == BATCH
        assert [text[1:3] for text in asked] == [text[1:3] for text in answered]
        same = [q[3:] == a[3:] for q, a in zip(asked, answered, strict=True)]
        kinds.add("mono" if all(same) and len({q[3:] for q in asked}) == 1 else "mixed")
        if strategy in ("cross", "cross-pair", "cross-fixed"):
            assert not any(same)
        if strategy == "hybrid":
            assert all(same) or not any(same)
    if strategy == "hybrid":
        assert kinds == {"mono", "mixed"}
    if strategy == "mono":
        assert kinds == {"mono"}


def test_explicit_negatives_are_columns(model, tmp_path):
    """Two negatives a row reach the loss as its third and fourth column."""
    seen = Run(model, tmp_path, {"explicit": 2}).train().seen
    assert len(seen[0]) == 4 and seen == expected(explicit=2)


def test_an_epoch_is_the_schedule(model, tmp_path):
    """A second epoch shows the same batches in the same order."""
    run = Run(model, tmp_path, {})
    run.trainer.args.num_train_epochs = 2
    assert run.train().seen == 2 * expected()


def test_what_does_not_fit_is_refused(model, tmp_path):
    """Another batch size, another data set, another corpus: one line, before any step."""
    from datasets import Dataset

    from lib.hybrid_batch_sampler import scheduled

    run = Run(model, tmp_path, {"batch_size": 4})
    with pytest.raises(ValueError, match="=8 on 1 processes makes batches of 8, expected .*=4$"):
        run.train()
    run = Run(model, tmp_path, {})
    run.trainer.train_dataset = Dataset.from_dict({"anchor": ["a"] * 8, "positive": ["b"] * 8})
    with pytest.raises(ValueError, match="what scheduled\\(\\) returns"):
        run.train()
    with pytest.raises(ValueError, match="of another corpus"):
        scheduled(corpus(), make_schedule(corpus()))


# ---- that trainer's own resume ----


@pytest.fixture(scope="module")
def stopped(dropping, tmp_path_factory):
    """A run without a stop, with dropout, that left a checkpoint of step 5 of 8."""
    out = tmp_path_factory.mktemp("stopped")
    run = Run(dropping, out, {}, save_strategy="steps", save_steps=HALF).train()
    return out / f"checkpoint-{HALF}", run


def test_resume_in_one_process_is_exact(dropping, stopped, tmp_path):
    """Batches go on with the next one and weights end up the same to the bit, dropout on."""
    checkpoint, whole = stopped
    run = Run(dropping, tmp_path, {}).train(resume_from_checkpoint=str(checkpoint))
    assert run.seen == whole.seen[HALF:] == expected()[HALF:]
    assert np.array_equal(run.weights, whole.weights)


@pytest.mark.parametrize("file", ["optimizer.pt", "rng_state.pth"])
def test_resume_does_not_miss_its_state(dropping, stopped, tmp_path, file):
    """What the docstring warns of: without that file training goes on, to other weights."""
    checkpoint, whole = stopped
    shutil.copytree(checkpoint, tmp_path / "copy")
    (tmp_path / "copy" / file).unlink()
    run = Run(dropping, tmp_path, {}).train(resume_from_checkpoint=str(tmp_path / "copy"))
    assert run.seen == expected()[HALF:]
    assert not np.array_equal(run.weights, whole.weights)


def test_resume_does_not_notice_another_schedule(dropping, stopped, tmp_path):
    """What the docstring warns of: another seed's batches are taken from there on."""
    checkpoint, _ = stopped
    run = Run(dropping, tmp_path, {"seed": 2}).train(resume_from_checkpoint=str(checkpoint))
    assert run.seen == expected(seed=2)[HALF:] != expected()[HALF:]


# ---- two processes ----


def main(folder: Path) -> None:
    """One rank of two: a whole run, then the rest of it from its checkpoint; what each saw."""
    model, rank = folder / "model", int(os.environ["RANK"])
    whole = Run(model, folder / "out", {}, 2, save_strategy="steps", save_steps=HALF).train()
    place = str(folder / "out" / f"checkpoint-{HALF}")
    rest = Run(model, folder / "rest", {}, 2).train(resume_from_checkpoint=place)
    np.savez(folder / f"{rank}.npz", whole=whole.weights, rest=rest.weights)
    (folder / f"{rank}.json").write_text(json.dumps([whole.seen, rest.seen]))


@pytest.fixture(scope="module")
def ranks(model, tmp_path_factory):
    """Folder, and of each of two gloo ranks what it saw and the weights that it ended with."""
    folder = tmp_path_factory.mktemp("ranks")
    shutil.copytree(model, folder / "model")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [sys.executable, *launch, __file__, str(folder)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr
    seen = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return folder, seen, [np.load(folder / f"{rank}.npz") for rank in range(2)]


def test_ranks_share_one_global_batch(ranks):
    """At every step the two ranks' rows are the halves of the schedule's batch."""
    _, seen, _ = ranks
    assert [whole for whole, _ in seen] == [expected(rank, 2) for rank in range(2)]


def test_two_ranks_train_as_one(ranks, model, tmp_path):
    """With passages gathered from all ranks the weights are those of one process, to rounding."""
    _, _, weights = ranks
    alone = Run(model, tmp_path, {}).train().weights
    assert np.array_equal(weights[0]["whole"], weights[1]["whole"])
    assert np.abs(weights[0]["whole"] - alone).max() < 1e-5


def test_resume_on_two_ranks_is_exact(ranks):
    """Each rank goes on with its half of the next batch, and ends with the same weights."""
    _, seen, weights = ranks
    assert [rest for _, rest in seen] == [expected(rank, 2)[HALF:] for rank in range(2)]
    assert all(np.array_equal(w["whole"], w["rest"]) for w in weights)


def test_resume_on_another_number_of_ranks(ranks, model, tmp_path):
    """A checkpoint of two ranks goes on in one process with whole batches."""
    folder, _, weights = ranks
    place = str(folder / "out" / f"checkpoint-{HALF}")
    run = Run(model, tmp_path, {}).train(resume_from_checkpoint=place)
    assert run.seen == expected()[HALF:]
    assert np.abs(run.weights - weights[0]["whole"]).max() < 1e-5


# ---- the README ----


def test_the_lines_of_the_readme_run(tmp_path, monkeypatch):
    """They train on a corpus and a model that lie where they say."""
    from lib import store

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    save_model(Path("intfloat/multilingual-e5-small"))
    rows = [
        {
            **{"pair": f"p{pair:03}", "language": language, "passage_id": f"a{pair:03}"},
            **{"question": f"q{pair}", "passage": f"a{pair}", "group": f"{pair}", "source": ""},
        }
        for pair in range(70)
        for language in LANGUAGES
    ]
    texts, place = ParallelCorpus.from_rows(rows, {}), Path("outputs/quick/corpus/seed=0/data")
    with store.atomic_folder(place, texts.meta) as new:
        texts.save(new)
    exec(EXAMPLE.replace("steps=100", "steps=2"), {})


def test_the_readme_has_these_lines():
    """The README shows what was run here, to the letter."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    if "HybridBatchSampler" not in text:
        pytest.skip("README.md does not show HybridBatchSampler")
    assert EXAMPLE in text


if __name__ == "__main__":
    main(Path(sys.argv[1]))
