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

from lib.corpus import ParallelCorpus
from lib.sampler import Schedule
from lib.sources.assemble import corpus_of_rows

ROOT = Path(__file__).parents[1]
MISSING = [name for name in ("sentence_transformers", "accelerate") if not find_spec(name)]
if MISSING:
    pytest.skip(
        f"not installed: {', '.join(MISSING)}; nothing of sentence-transformers' trainer is tested",
        allow_module_level=True,
    )

LANGUAGES, PAIRS, BATCH, STEPS, STOP = ("de", "en", "th"), 40, 8, 6, 4


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
    return corpus_of_rows(rows, {})


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


def test_a_saved_model_says_what_it_is(tmp_path):
    """What this version writes is understood before a study begins: pooling, prompts, length."""
    from lib.params import Train
    from lib.training import pretrained

    save_model(tmp_path)
    asked = Train(model=str(tmp_path))
    found = {"pooling": "mean", "question_prompt": "", "passage_prompt": "", "max_length": 8}
    assert pretrained.applied(pretrained.own(tmp_path, "m"), asked) == found
    for file, name, value, key, said in (
        ("1_Pooling/config.json", "pooling_mode", "cls", "pooling", "cls"),
        ("config_sentence_transformers.json", "prompts", {"query": "q "}, "question_prompt", "q "),
    ):
        written = json.loads((tmp_path / file).read_text())
        assert name in written
        (tmp_path / file).write_text(json.dumps(written | {name: value}))
        found[key] = said
        assert pretrained.applied(pretrained.own(tmp_path, "m"), asked) == found


class Run:
    """One trainer on the schedule, or on `rows`; `seen` has the texts [step][column] that its loss
    got in training, `judged` those of an evaluation."""

    def __init__(
        self,
        model: Path,
        out: Path,
        ranks: int = 1,
        options=None,
        rows=None,
        eval_dataset=None,
        **arguments,
    ):
        import sentence_transformers as st
        import torch
        from sentence_transformers.sentence_transformer import losses

        from lib.bridges.sentence_transformers import HybridBatchSampler, scheduled

        seen, judged = self.seen, self.judged = [], []

        class Loss(losses.MultipleNegativesRankingLoss):
            def forward(self, features, labels=None):
                features = list(features)
                ids = [f["input_ids"][:, 0].tolist() for f in features]
                texts = [tokenizer.convert_ids_to_tokens(column) for column in ids]
                (seen if torch.is_grad_enabled() else judged).append(texts)
                return super().forward(features, labels)

        self.model = st.SentenceTransformer(str(model), device="cpu")
        tokenizer = self.model.tokenizer
        given = {
            "num_train_epochs": 1,
            "per_device_train_batch_size": BATCH // ranks,
            "batch_sampler": HybridBatchSampler,
            "use_cpu": True,
            "learning_rate": 1e-2,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
        }
        args = st.SentenceTransformerTrainingArguments(str(out), **given | arguments)
        loss, texts = Loss(self.model, gather_across_devices=ranks > 1), corpus()
        if rows is None:
            rows = scheduled(texts, schedule(texts, **options or {}))
        self.trainer = st.SentenceTransformerTrainer(
            self.model, args, rows, eval_dataset, loss=loss
        )

    def train(self, checkpoint: Path | None = None) -> "Run":
        self.trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        return self

    @property
    def weights(self) -> list[float]:
        return [x for p in self.model.parameters() for x in p.detach().ravel().tolist()]


def schedule(texts: ParallelCorpus, strategy: str = "hybrid", **rest) -> Schedule:
    return Schedule(
        texts.index, strategy, **{"batch_size": BATCH, "steps": STEPS, "seed": 1} | rest
    )


def expected(**options) -> list[list[list[str]]]:
    """Texts [step][column] of an epoch, spelt out from the schedule."""
    found = []
    for batch in schedule(corpus(), **options):
        asked = [LANGUAGES[i] for i in batch.question_language]
        answered = [LANGUAGES[i] for i in batch.passage_language]
        columns = [("q", batch.pair, asked), ("a", batch.pair, answered)]
        columns += [("a", negative, answered) for negative in batch.negatives.T]
        found.append(
            [
                [f"{side}{pair:02}{name}" for pair, name in zip(pairs, names, strict=True)]
                for side, pairs, names in columns
            ]
        )
    return found


def apart(a: list[float], b: list[float]) -> float:
    return float(np.abs(np.subtract(a, b)).max())


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Folder of two saved models: plain, and dropping, which has dropout, so that random numbers
    count."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "plain")
    save_model(folder / "dropping", dropout=0.2)
    return folder


# ---- one process ----


@pytest.mark.parametrize("strategy", ["mono", "cross", "hybrid"])
def test_the_loss_sees_the_batches_of_the_schedule(models, tmp_path, strategy):
    """In order, all of them; and their composition, read off the texts, is that of the arm."""
    seen = Run(models / "plain", tmp_path, options={"strategy": strategy}).train().seen
    assert seen == expected(strategy=strategy)
    kinds = set()
    for asked, answered in seen:
        assert [text[1:3] for text in asked] == [text[1:3] for text in answered]
        assert len({int(text[1:3]) // 2 for text in asked}) == BATCH  # groups
        same = [q[3:] == a[3:] for q, a in zip(asked, answered, strict=True)]
        if any(same):
            assert all(same) and len({text[3:] for text in asked}) == 1
        kinds.add("mono" if any(same) else "cross")
    assert kinds == ({"mono", "cross"} if strategy == "hybrid" else {strategy})


def test_explicit_negatives_are_columns(models, tmp_path):
    """Two negatives a row reach the loss as its third and fourth column."""
    seen = Run(models / "plain", tmp_path, options={"explicit": 2}).train().seen
    assert len(seen[0]) == 4 and seen == expected(explicit=2)


def test_prompts_are_by_column(models, tmp_path):
    """The trainer puts its prompt for anchors before questions alone."""
    seen = Run(models / "plain", tmp_path, prompts={"anchor": "q00de "}).train().seen
    assert seen == [[["q00de"] * BATCH, answered] for _, answered in expected()]


def test_what_does_not_fit_is_refused(models, tmp_path):
    """Another batch size, order of rows or corpus: one line, before any step."""
    from lib.bridges.sentence_transformers import scheduled

    run = Run(models / "plain", tmp_path, options={"batch_size": 4})
    with pytest.raises(ValueError, match="=8 on 1 processes makes batches of 8, expected .*=4$"):
        run.train()
    run = Run(models / "plain", tmp_path)
    rows = run.trainer.train_dataset
    for other in (rows.shuffle(seed=0), rows.select(range(2 * BATCH))):
        run.trainer.train_dataset = other
        with pytest.raises(ValueError, match="rows of what scheduled\\(\\) returned were moved"):
            run.train()
    with pytest.raises(ValueError, match="of another corpus"):
        scheduled(corpus(), schedule(corpus()))
    assert run.seen == []


# ---- that trainer's own resume: what the docstring of lib.bridges.sentence_transformers says ----


@pytest.fixture(scope="module")
def stopped(models, tmp_path_factory):
    """Two epochs without a stop, with dropout; checkpoints of steps 4 and 8 of 12."""
    out = tmp_path_factory.mktemp("stopped")
    saved = {"save_strategy": "steps", "save_steps": STOP, "num_train_epochs": 2}
    run = Run(models / "dropping", out, **saved).train()
    assert run.seen == 2 * expected()
    return out, run


@pytest.mark.parametrize("step", [STOP, 2 * STOP])
def test_resume_in_one_process_is_exact(models, stopped, tmp_path, step):
    """In either epoch batches go on with the next, and weights end the same to the bit."""
    out, whole = stopped
    run = Run(models / "dropping", tmp_path, num_train_epochs=2).train(out / f"checkpoint-{step}")
    assert run.seen == whole.seen[step:]
    assert run.weights == whole.weights


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_resume_does_not_miss_its_state(models, stopped, tmp_path, file):
    """Without that file training goes on with the right batches, to other weights."""
    out, whole = stopped
    place = Path(shutil.copytree(out / f"checkpoint-{STOP}", tmp_path / "copy"))
    (place / file).unlink()
    run = Run(models / "dropping", tmp_path, num_train_epochs=2).train(place)
    assert run.seen == whole.seen[STOP:]
    assert apart(run.weights, whole.weights) > 1e-4


def test_resume_does_not_notice_another_schedule(models, stopped, tmp_path):
    """Another seed's batches are taken from that step on."""
    other = {"options": {"seed": 2}, "num_train_epochs": 2}
    run = Run(models / "dropping", tmp_path, **other).train(stopped[0] / f"checkpoint-{STOP}")
    assert run.seen == (2 * expected(seed=2))[STOP:]


def test_resume_without_skipping_begins_anew(models, stopped, tmp_path):
    """With ignore_data_skip the next batch is that of the first step."""
    again = {"ignore_data_skip": True, "num_train_epochs": 2}
    run = Run(models / "dropping", tmp_path, **again).train(stopped[0] / f"checkpoint-{STOP}")
    assert run.seen[:STEPS] == expected()


# ---- two processes ----


def main(folder: Path) -> None:
    """One rank of two: each run's batches and weights, into a file of the rank's own."""

    def run(model: str, out: str, checkpoint: Path | None = None):
        saved = {"save_strategy": "steps", "save_steps": STOP}
        done = Run(folder / model, folder / out, ranks=2, **saved).train(checkpoint)
        return done.seen, done.weights

    found = {
        "plain": run("plain", "two"),
        "from one": run("plain", "rest", folder / "one" / f"checkpoint-{STOP}"),
        "dropping": run("dropping", "dropping two"),
        "resumed": run("dropping", "rest", folder / "dropping two" / f"checkpoint-{STOP}"),
    }
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def shared(models, tmp_path_factory):
    """Folder, the run of one process, and what each of two gloo ranks saw and ended with."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(models, folder, dirs_exist_ok=True)
    saved = {"save_strategy": "steps", "save_steps": STOP}
    alone = Run(models / "plain", folder / "one", **saved).train()
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    surroundings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, __file__, str(folder)],
        capture_output=True,
        text=True,
        env=os.environ | surroundings | {"TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr
    return folder, alone, [json.loads((folder / f"{i}.json").read_text()) for i in range(2)]


def together(ranks: list[dict], name: str) -> list[list[list[str]]]:
    """Texts [step][column] of both ranks of a run, rank 0's before rank 1's."""
    steps = zip(*(rank[name][0] for rank in ranks), strict=True)
    joined = [[a + b for a, b in zip(*columns, strict=True)] for columns in steps]
    assert all(len(column) == BATCH // 2 for step in ranks[0][name][0] for column in step)
    return joined


def test_ranks_share_one_global_batch(shared):
    """At every step the two ranks' rows are the schedule's batch, half of it each."""
    assert together(shared[2], "plain") == expected()


def test_two_ranks_train_as_one(shared):
    """With passages gathered from both the weights are those of one process, to rounding."""
    _, alone, (first, second) = shared
    assert first["plain"][1] == second["plain"][1]
    assert apart(first["plain"][1], alone.weights) < 1e-5


def test_resume_on_two_ranks_is_exact(shared):
    """Each goes on with its half of the next batch, to the same weights, dropout on."""
    *_, ranks = shared
    assert together(ranks, "resumed") == expected()[STOP:]
    assert ranks[0]["resumed"][1] == ranks[0]["dropping"][1] == ranks[1]["resumed"][1]


def test_resume_of_one_process_on_two(shared):
    """Batches go on, halved; without dropout to the same weights, to rounding."""
    _, alone, ranks = shared
    assert together(ranks, "from one") == expected()[STOP:]
    assert apart(ranks[0]["from one"][1], alone.weights) < 1e-5


@pytest.mark.parametrize("model", ["plain", "dropping"])
def test_resume_of_two_processes_on_one(shared, tmp_path, model):
    """Batches go on, whole; weights end the same, to rounding, only without dropout."""
    folder, _, ranks = shared
    out = {"plain": "two", "dropping": "dropping two"}[model]
    run = Run(folder / model, tmp_path).train(folder / out / f"checkpoint-{STOP}")
    assert run.seen == expected()[STOP:]
    difference = apart(run.weights, ranks[0][model][1])
    assert difference < 1e-5 if model == "plain" else difference > 1e-4


if __name__ == "__main__":
    main(Path(sys.argv[1]))
