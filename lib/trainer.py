"""The training loop: same parameters, same bits, also when killed at any moment and run again.

A step is a pure function of weights, optimizer state and step number: the batch comes from the
stateless schedule, the learning rate from a formula and dropout's random numbers from
(seed, step, rank). So a checkpoint holds tensors and a few numbers, and nothing has to be replayed.
"""

from __future__ import annotations

import io
import time
from contextlib import nullcontext, redirect_stdout
from copy import copy
from pathlib import Path

import numpy as np
import torch

from lib import store
from lib.benchmark import Benchmark
from lib.corpus import ParallelCorpus
from lib.encoder import on_device, pick_device
from lib.losses import info_nce
from lib.params import Train
from lib.sampler import Batch, PairIndex, Schedule
from lib.training import (
    adapters,
    budgets,
    checkpoints,
    conflict,
    cost,
    export,
    frozen,
    maps,
    models,
    objectives,
    packing,
    prompts,
    ranks,
    record,
    sharding,
    vocabulary,
)
from lib.training.checkpoints import Launched, State
from lib.training.determinism import checksum, reproducible, seed_dropout
from lib.training.identity import identity_of
from lib.training.optimizer import adamw, learning_rate, shrunk
from lib.training.progress import Diverged as Diverged
from lib.training.progress import Pace, memory, require_finite
from lib.training.record import TrainResult
from lib.training.validation import best_of, patience_is_over, validate

# Steps whose losses are read together: each time waits for a GPU.
UNREAD = {"cpu": 1, "cuda": 50}


def train(
    corpus: ParallelCorpus, params: Train, folder: Path, dev: Benchmark | None = None
) -> TrainResult:
    """Train as `params` says into `folder`, going on from the newest valid checkpoint there.

    dev: what params.validate_every validates on. params.ranks processes are started. Where torchrun
    or accelerate launched this process, or it is in a torch.distributed group, all of its group
    call this and none are started.

    folder/model/ marks a finished run, which is only read; smaller budgets' encoders are below
    folder/budgets/. Raises ValueError in one line for parameters or corpus that differ from those
    of what is there, for a checkpoint without optimizer state, and for what schedule or encoder
    refuse; Diverged where training fails, MemoryError where memory does not suffice, OSError where
    a checkpoint cannot be written."""
    dev = dev if params.validate_every else None
    folder, identity = Path(folder), identity_of(corpus, params, dev)
    ranks.join(identity["device"])
    if not budgets.is_finished(params, folder, identity):
        work = (corpus, params, folder, identity, dev)
        if params.ranks > ranks.world() == 1:
            ranks.start(params.ranks, identity["device"], _train, *work)
        else:
            _train(*work)
    return TrainResult.read(folder)


def _train(
    corpus: ParallelCorpus, params: Train, folder: Path, identity: dict, dev: Benchmark | None
) -> None:
    """The work of one rank, of which the first does the talking."""
    with redirect_stdout(io.StringIO()) if ranks.rank() else nullcontext():
        with reproducible(params.threads, identity["device"]):
            Training(corpus, params, folder, identity, dev).finish()


def schedule(index: PairIndex, params: Train) -> Schedule:
    """The batches of the run that `params` describes."""
    own = {"alpha", "batch_size", "steps", "seed", "explicit", "language_power", "only"}
    return Schedule(index, params.strategy, **params.model_dump(include=own))


class Training:
    """One rank of a run: what stays as it is (batches, texts), and the state that steps change.

    Every rank has its own, with the same weights; only the first one writes.

    launched  steps done since the log was last written up
    until     how many steps are made in one go
    branches  the smaller budgets whose encoders are not there yet
    """

    def __init__(
        self,
        corpus: ParallelCorpus,
        params: Train,
        folder: Path,
        identity: dict,
        dev: Benchmark | None = None,
    ):
        self.params, self.folder, self.identity, self.dev = params, folder, identity, dev
        self.index = corpus.index
        self.schedule = schedule(corpus.index, params)
        self.encoder = models.build_encoder(params, corpus.tokenizer_file)
        self.texts = prompts.texts(corpus, self.encoder, params, self.schedule)
        frozen.freeze(self.encoder, params.frozen)
        self.encoder.model = adapters.put_in(self.encoder.model, params)
        if params.recompute:
            models.recompute(self.encoder.model)
        vocabulary.train_only(self.encoder, vocabulary.used(self.encoder, self.texts, dev))
        self.device = torch.device(pick_device(params.device))
        sharding.put_in(self.encoder.model, params, self.device)
        self.encoder.to(self.device).train()
        if params.compile:
            self.encoder.model.compile(dynamic=True)
        if params.steps:
            frozen.fill(self.encoder, self.texts)
        maps.put_in(self.encoder, params, self.texts, self.index)
        self.state = State(self.encoder, adamw(self.encoder, params))
        self.teacher = objectives.teacher(self.encoder, self.texts, self.index, params)
        self.launched: list[Launched] = []
        self.until = params.steps
        absent = None if ranks.rank() else budgets.missing(params, folder, identity)
        self.branches = ranks.collected(absent)[0]
        latest = self.branches[0].leaves if self.branches else params.steps
        checkpoints.resume(self.state, folder, identity, latest)

    def finish(self) -> None:
        """Train to the end, by way of the branches, and write the results, the encoder last."""
        for branch in self.branches:
            self._train_until(branch.leaves)
            self._follow(branch)
        self._train_until(self.params.steps)
        state = self.state
        if state.step < self.params.steps:
            best = best_of(state.validations)["step"]
            print(f"stopped after step {state.step}: no better validation since step {best}")
        self._write_results()

    def _follow(self, branch: budgets.Branch) -> None:
        """Train the encoder of a smaller budget from here to its end, and come back."""
        run = copy(self)
        run.params, run.folder, run.identity = branch.params, branch.folder, branch.identity
        run.state, run.branches, run.launched = self.state.branch(), [], []
        print(f"budget {run.params.steps}: leaves the trunk at step {branch.leaves}", flush=True)
        with self.state.clock.stopped():
            checkpoints.resume(run.state, run.folder, run.identity)
            run.finish()
            if not ranks.rank():
                checkpoints.prune(run.folder, run.state.step, keep=0)
            checkpoints.come_back(self.state, self.folder, self.identity, branch.leaves)
        self.encoder.train()

    def _train_until(self, steps: int) -> None:
        """Steps until so many are done, or patience is over; a checkpoint, if more are to come."""
        state, p, self.until = self.state, self.params, steps
        pace = Pace(state.step, p)
        while state.step < steps and not patience_is_over(state.validations, p.patience):
            self.launched.append(self.step())
            state.step += 1
            unread = UNREAD[self.device.type]
            if self._at_every(p.checkpoint_every, p.log_every, p.validate_every, unread):
                self.write_log()
            if self.dev is not None and self._at_every(p.validate_every):
                self._validate()
            if self._at_every(p.checkpoint_every) and state.step < p.steps:
                checkpoints.save(state, self.folder, self.identity, p.keep_checkpoints)
            pace.tell(state.step, state.log)

    def _at_every(self, *steps: int) -> bool:
        """Whether so many steps are done, or a multiple, or all that are made in one go."""
        at = self.state.step
        return at == self.until or any(n and at % n == 0 for n in steps)

    # --- a step --------------------------------------------------------------------------------

    def step(self) -> Launched:
        """One update; batch -> vectors -> loss -> gradient -> clipping -> AdamW."""
        at, p, optimizer = self.state.step, self.params, self.state.optimizer
        if p.look_every and not at % p.look_every:
            conflict.look(self.folder, at, p, self.index, self.encoder, self.loss)
        begin, batch = cost.mark(self.device), self.schedule.batch(at)
        seed_dropout(self.device.type, p.seed, at, ranks.rank())
        rate = learning_rate(p, at)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        with memory(at, p):
            loss = self.loss(batch)
            loss.backward()
            ranks.add_up(self.encoder.parameters())
            norm = sharding.clip(self.encoder.parameters(), p.clip)
            optimizer.step()
        end, number = cost.mark(self.device), checksum(batch)
        return Launched(at, batch.kind, number, rate, loss.detach(), norm, begin, end)

    def loss(self, batch: Batch) -> torch.Tensor:
        """That of the whole batch; see lib.losses for the layout."""
        vectors = ranks.gathered(self._vectors(batch.part(ranks.rank(), ranks.world())))
        hard, size = batch.negatives.shape[1], len(batch.pair) // ranks.world()
        sizes = [size, size, size * hard, vectors.shape[1] - size * (2 + hard)]
        question, passage, negative, translation = (
            part.flatten(0, 1) for part in vectors.split(sizes, dim=1)
        )
        loss = info_nce(
            question,
            passage,
            self.params.temperature,
            mode=self.params.negatives,
            most=self.params.most_negatives,
            language=on_device(self.device, batch.passage_language),
            symmetric=self.params.symmetric,
            **(self._hard(batch, negative) if hard else {}),
        )
        if self.params.objective:
            texts = question, passage, translation
            loss = loss + objectives.added(self.params, batch, *texts, self.teacher)
        return loss

    def _vectors(self, batch: Batch) -> torch.Tensor:
        """[n, d]: questions, passages, negatives and `translation`, if any, embedded together."""
        sides = objectives.rows(self.index, batch, self.params)
        token_lists = [t for side, (rows, _) in sides for t in self.texts.take(side, rows)]
        language = np.concatenate([own for _, (_, own) in sides])
        half = self.params.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            vectors = packing.embed(self.encoder, token_lists, self.params.chunk)
        return maps.mapped(self.encoder, vectors, language)

    def _hard(self, batch: Batch, negative: torch.Tensor) -> dict:
        """Arguments of the loss that explicit negatives add."""
        group = self.index.group
        return {
            "negatives": negative.unflatten(0, batch.negatives.shape),
            "question_group": on_device(self.device, group[batch.pair]),
            "negative_group": on_device(self.device, group[batch.negatives]),
        }

    # --- between steps -------------------------------------------------------------------------

    def write_log(self) -> None:
        """Take the launched steps into the log. Raises Diverged at the first that went wrong."""
        values = [torch.stack([step.loss, step.norm]) for step in self.launched]
        for step, (loss, norm) in zip(self.launched, torch.stack(values).tolist(), strict=True):
            require_finite(step.step, loss, norm, self.schedule, self.params.seed)
            self.state.log.append(step.row(loss, norm))
        self.launched.clear()

    def _validate(self) -> None:
        """Evaluate on the questions set aside; the best weights so far are kept."""
        start, state = time.perf_counter(), self.state
        state.judge(validate(self.encoder, self.dev))
        state.clock.validation_seconds += time.perf_counter() - start

    @torch.no_grad()
    def _write_results(self) -> None:
        """All files of a finished run, by the first rank; nobody goes on before they are there."""
        state, spent = self.state, self.state.clock.total()  # of all ranks, which meet here
        with sharding.gathered(self.encoder):
            if ranks.rank():
                return
            checkpoints.prune(self.folder, state.step, self.params.keep_checkpoints)
            factor = shrunk(self.params, state.back_to_best())
            done = schedule(self.index, self.params.model_copy(update={"steps": state.step}))
            each = cost.flops(self.encoder)  # as it was trained, without what is put back below
            with frozen.whole(self.encoder), vocabulary.restored(self.encoder, factor):
                record.write(self.folder, state, spent, done, self.texts, self.params, each)
                meta = {"identity": self.identity, "record": record.hashes(self.folder)}
                with store.atomic_folder(self.folder / "model", meta) as new:
                    export.save_encoder(self.encoder.eval(), new)
