"""A study on a real SLURM of one node, which this file starts and ends; and what a profile may be.

The daemons need root: slurmd starts jobs as their owners. There is no accounting database, as on
many small clusters; the node claims two GPUs that do not exist, so that asking for them shows.
"""

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest
from test_study_run import CODE, Place, expected, make_products, wait_for, write_notebooks

from lib import store
from lib.store import ROOT
from lib.study import cluster, grid, plan, run, stage
from lib.study import progress as telling
from lib.study.__main__ import main

PROFILE = ROOT / "profiles" / "slurm"
BINARIES = {
    "munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd",
    "sbatch": "slurm-client", "squeue": "slurm-client", "scancel": "slurm-client",
    "srun": "slurm-client",
}  # fmt: skip
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
ReturnToService=2
KillWait=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=32000 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES State=UP
"""
# Snakemake's plugin hides SLURM_CONF from the srun within a job, which on a cluster has its own in
# /etc; ours is told again.
SRUN = """#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {real} "$@"
"""
# The plugin looks for ended jobs after 5 s, 15 s more, 25 s more. Here a look lasts until they have
# ended, so that the test takes no longer than its jobs; but not amid training, for it could not be
# stopped during a look.
SQUEUE = """#!/bin/sh
case "$*" in *--states=all*)
    for _ in $(seq 150); do
        [ ! -e {folder}/hold ] && {real} -h | grep -q . || break
        sleep 0.3
    done
esac
exec {real} "$@"
"""
TWO_GPUS = "device: cuda, ranks: 2, batch_size: 4"
SAYS_WHERE = """
import os
print("job", os.environ.get("SLURM_JOB_ID"), "on GPUs", os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


def missing():
    """What a SLURM of our own lacks on this machine, and how to get it; "" for nothing."""
    packages = sorted({BINARIES[name] for name in BINARIES if not found(name)})
    plugin = importlib.util.find_spec("snakemake_executor_plugin_slurm")
    lacks = [f"apt-get install {' '.join(packages)}"] if packages else []
    lacks += [] if plugin else ["pip install snakemake-executor-plugin-slurm"]
    lacks += [] if os.geteuid() == 0 else ["to run as root"]
    return f"a SLURM of one node needs: {', '.join(lacks)}" if lacks else ""


def found(name):
    """Path of a program; daemons lie where a user's PATH does not look."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Slurm:
    """A controller and a node, all files of which lie in one folder."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        host = socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(
            CONF.format(folder=folder, host=host, ports=free_ports(2))
        )
        self.hold = folder / "hold"  # see SQUEUE
        for name, script in (("srun", SRUN), ("squeue", SQUEUE)):
            file = folder / "bin" / name
            store.make_folder(file.parent)
            file.write_text(script.format(folder=folder, real=found(name)))
            file.chmod(0o755)
        self.settings = {
            "SLURM_CONF": f"{folder}/slurm.conf",
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
        }
        self.environment = os.environ | self.settings

    @contextmanager
    def running(self):
        """Start the daemons in the foreground, as children of ours; end them and their jobs."""
        with ExitStack() as stack:
            names = ("key-file", "pid-file", "log-file", "seed-file", "socket")
            own = [f"--{name}={self.folder}/munge.{name.removesuffix('-file')}" for name in names]
            stack.enter_context(self.daemon("munged", "--foreground", "--force", *own))
            wait_for((self.folder / "munge.socket").exists, 10)
            stack.enter_context(self.daemon("slurmctld", "-D"))
            stack.enter_context(self.daemon("slurmd", "-D", "-N", "node1"))
            wait_for(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"), 20)
            stack.callback(self.cancel_all)
            yield self

    @contextmanager
    def daemon(self, name, *options):
        """A daemon that is killed with all that it started."""
        with open(self.folder / f"{name}.out", "wb") as out:
            process = subprocess.Popen(
                [found(name), *options], env=self.environment, stdout=out, stderr=out
            )
        try:
            yield
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            kill(family)

    def cancel_all(self):
        """Leave no driver, stage or job behind, whatever happened."""
        kill(self.processes("python"))
        self.ask("scancel", "--user=root")
        end = time.monotonic() + 10
        while self.queue() and time.monotonic() < end:
            time.sleep(0.2)

    def ask(self, *command):
        """What a command of SLURM prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout

    def jobs(self, stage=""):
        """Fields of every job that the controller remembers, oldest first, and its stage; or of
        one stage's."""
        lines = self.ask("scontrol", "--oneliner", "show", "job").splitlines()
        found = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if "JobId=" in line]
        for job in found:
            job["stage"] = re.sub("^rule_|_wildcards_.*", "", job["Comment"])
        return sorted((j for j in found if stage in j["stage"]), key=lambda j: int(j["JobId"]))

    def states(self):
        """What became of the jobs of each stage."""
        found = {}
        for job in self.jobs():
            found.setdefault(job["stage"], []).append(job["JobState"])
        return found

    def processes(self, text):
        """Processes on the node whose command line holds a text."""
        mine = {"SLURM_CONF": self.settings["SLURM_CONF"]}.items()
        return [
            p
            for p in psutil.process_iter(["cmdline", "environ"])
            if text in " ".join(p.info["cmdline"] or ())
            and mine <= (p.info["environ"] or {}).items()
        ]

    def queue(self):
        """Jobs that wait or run."""
        return self.ask("squeue", "-h", "-o", "%i").split()


def kill(processes):
    """End processes, some of which may have ended."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def free_ports(count):
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def slurm(tmp_path):
    """A running SLURM, or a skip that says what to install."""
    if lacks := missing():
        pytest.skip(lacks)
    with Slurm(tmp_path / "slurm").running() as running:
        yield running


def test_a_study_on_slurm(slurm, tmp_path):
    """Stopped amid training and started again with the committed profile: training goes on, report
    and results are those of this machine alone, every stage was a job of the CPUs and GPUs that it
    asks for, and then nothing is left to run."""
    there, here = Place(tmp_path / "there"), Place(tmp_path / "here")
    there.environment |= slurm.settings
    write_notebooks(there.folder / "notebooks", CODE | {"train": SAYS_WHERE + CODE["train"]})
    text = f"train: {{steps: 4, {TWO_GPUS}}}"
    start = ("run", there.study(text), "--profile", str(PROFILE))
    stopped = stopped_amid_training(there, start, slurm)
    without = here.study(text.replace("device: cuda, ", ""))  # there is no GPU here
    local = here.start("run", without, "--cores", "1")
    psutil.Process(local.pid).nice(19)  # it has all the time that the cluster takes
    said = stopped.communicate(timeout=60)[0]
    assert stopped.returncode == 130 and "cancelling the cluster's jobs" in said

    process = there.start(*start)
    lines = process.communicate(timeout=300)[0].splitlines()
    assert process.returncode == 0, lines
    assert lines[0] == "tiny: 1 corpus, 1 run; 1 of 5 stages are done, 4 to run, 1 at a time"
    assert lines[-1].startswith(f"report: {there.outputs}/tiny/report/index.html")
    assert (there.outputs / "tiny/runs/base/starts.txt").read_text().split() == ["0", "1"]
    assert local.wait(60) == 0
    tables = [store.read_json(place.outputs / "tiny/report/tables/table.json")
              for place in (there, here)]  # fmt: skip
    assert tables == [{"base": expected(0, 4)}] * 2
    check_jobs(slurm, (there.outputs / "tiny/logs/train-base.log").read_text())

    code, lines = there.run(*start)
    assert code == 0 and lines[0].endswith("5 of 5 stages are done, nothing to run")
    assert len(slurm.jobs()) == 5


def stopped_amid_training(place, start, slurm):
    """A start that got Ctrl-C after its first step; neither a job nor a process of one is left."""
    state = place.outputs / "tiny/runs/base/state.json"
    process = place.start(*start)
    wait_for(lambda: "train" in slurm.states(), 90)
    for hold in (place.outputs / "hold", slurm.hold):  # after each step training waits
        hold.touch()
    wait_for(state.exists, 90)
    assert slurm.queue() and slurm.processes("ipykernel")
    process.send_signal(signal.SIGINT)
    wait_for(lambda: not slurm.queue() and not slurm.processes("lib.study stage"), 10)
    assert slurm.states() == {"prepare": ["COMPLETED"], "train": ["CANCELLED"]}
    assert store.read_json(state)[0] == 1
    for hold in (place.outputs / "hold", slurm.hold):
        hold.unlink()
    return process


def check_jobs(slurm, said):
    """A job a stage, the last two in one; training, whose log is `said`, had two CPUs and GPUs."""
    assert slurm.states() == {
        "prepare": ["COMPLETED"], "train": ["CANCELLED", "COMPLETED"], "evaluate": ["COMPLETED"],
        "end_analyse_report": ["COMPLETED"],
    }  # fmt: skip
    asked = {job["stage"]: (job["NumCPUs"], job.get("TresPerJob")) for job in slurm.jobs()}
    assert asked["train"] == ("2", "gres:gpu:2") and asked["evaluate"] == ("1", None)
    assert f"job {slurm.jobs('train')[-1]['JobId']} on GPUs 0,1" in said


# --- no daemon needed ---

FAULTS = {
    "no folder": (None, "has no config.yaml (expected the folder of a Snakemake profile)"),
    "no YAML": ("executor: [", "is not YAML of the form `setting: value`"),
    "a list": ("[slurm]", "is not YAML of the form `setting: value`"),
    "no executor": ("jobs: 3", "names no cluster (expected an executor, as slurm)"),
    "this machine": ("executor: local", "names no cluster (expected an executor, as slurm)"),
    "no plugin": (
        "executor: no-such\njobs: 3",
        "executor no-such needs the Python package snakemake-executor-plugin-no-such",
    ),
    "no jobs": ("executor: slurm", "jobs is None (expected how many stages at a time)"),
    "jobs in words": (
        "executor: slurm\njobs: many",
        "jobs is 'many' (expected how many stages at a time)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_profile_that_cannot_be_used(outputs, tmp_path, capsys, monkeypatch, fault):
    """One line that names it, exit 2, before anything is made."""
    text, said = FAULTS[fault]
    plugins = {"snakemake_executor_plugin_slurm": True}
    monkeypatch.setattr(cluster, "find_spec", plugins.get)
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    study = tmp_path / "tiny.yaml"
    study.write_text("train: {steps: 2}")
    assert main(["run", str(study), "--profile", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert re.fullmatch(rf"{tmp_path}(/config.yaml)?: {re.escape(said)}\n", message)
    assert not (outputs / "tiny").exists()


def planned(folder, text):
    (folder / "tiny.yaml").write_text(text)
    return plan.plan(grid.load_study(str(folder / "tiny.yaml")))


def test_gpus_are_asked_for_by_device(tmp_path):
    """`cuda` asks for one a rank, `auto` and `cpu` for none: a job without GPUs sees none."""
    text = "train: {device: cuda, ranks: 3, batch_size: 6}\nevaluate: {device: cuda}"
    asked = {job.stage: job.gpus for job in planned(tmp_path, text)}
    assert asked == {"prepare": 0, "train": 3, "evaluate": 1, "analyse": 0, "report": 0}
    for device in ("auto", "cpu"):
        jobs = planned(tmp_path, f"train: {{device: {device}, ranks: 2, batch_size: 6}}")
        assert not any(job.gpus for job in jobs)


def test_as_many_at_a_time_as_there_are_runs(tmp_path):
    """The estimate must not count on a queue that a study cannot fill."""
    jobs = planned(tmp_path, "vary: {seed: {0: {train.seed: 0}, 1: {train.seed: 1}}}")
    assert [cluster.Cluster(tmp_path, n).slots(jobs) for n in (1, 2, 100)] == [1, 2, 2]


def test_stamps_count_where_messages_are_lost(outputs, tmp_path):
    """Two nodes that append to one file over NFS at once may write over each other."""
    jobs = {job.name: job for job in planned(tmp_path, "train: {steps: 2}")}
    progress = telling.Progress(jobs, slots=1)
    events = stage.Events(outputs / "tiny")
    events.file.write_text('{"event": "sta{"event": "finished", "name"\n[1]\n{"event": 1}\n')
    assert events.new() == []
    job = jobs["prepare base"]
    make_products(job)
    job.record(job.stamp, 3.0)
    progress.look()
    assert progress.done == {"prepare base"} and progress.seconds == {"prepare": [3.0]}


SNAKEMAKE = """
Error in rule train:
    message: {message}
    jobid: 4
    input: corpus/base/prepare.ok
    output: runs/{key}/train.ok
"""
WORDS = {
    "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition: no":
        "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition: no",
    "SLURM-job '8' failed, SLURM status is: 'TIMEOUT'. Detailed failure reason unavailable (status":
        "SLURM-job '8' failed, SLURM status is: 'TIMEOUT'",
    "SLURM-job '8' failed.For further error details see the log": "SLURM-job '8' failed",
}  # fmt: skip


def test_the_word_of_the_cluster(outputs, tmp_path):
    """Why it did not run a stage, as Snakemake's log has it; nothing of other stages, and nothing
    of this machine, where Snakemake has no word to pass on."""
    job = planned(tmp_path, "train: {steps: 2}")[1]
    log = stage.Events(outputs / "tiny").file.with_name("snakemake.log")
    for message, word in WORDS.items():
        log.write_text(SNAKEMAKE.format(message=message, key="base"))
        assert telling.word_of_cluster(job) == f"{word}; see {log}"
    for other, key in (("None", "base"), ("SLURM sbatch failed", "other")):
        log.write_text(SNAKEMAKE.format(message=other, key=key))
        assert telling.word_of_cluster(job) == ""


@pytest.mark.parametrize("ignored", [True, False])
def test_nohup_is_obeyed(ignored):
    """A driver that was started to outlive its terminal is not ended by its hanging up."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    try:
        with run._ending(ended, away=True):
            assert (signal.getsignal(signal.SIGHUP) == signal.SIG_IGN) == ignored
    finally:
        signal.signal(signal.SIGHUP, before)
