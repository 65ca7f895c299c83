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
import time
from contextlib import ExitStack, contextmanager

import psutil
import pytest
from test_execute import CODE, Place, expected, make_products, wait_for, write_notebooks

from lib import store
from lib.store import ROOT
from lib.study import cluster, grid, plan, stage
from lib.study import progress as telling
from lib.study.__main__ import main

PROFILE = ROOT / "profiles" / "slurm"
BINARIES = {
    "munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd",
    "sbatch": "slurm-client", "squeue": "slurm-client", "scancel": "slurm-client",
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
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    @contextmanager
    def running(self):
        """Start the daemons in the foreground, as children of ours; end them and their jobs."""
        with ExitStack() as stack:
            own = [f"--{name}={self.folder}/munge.{name.removesuffix('-file')}"
                   for name in ("key-file", "pid-file", "log-file", "seed-file", "socket")]  # fmt: skip
            stack.enter_context(self.daemon("munged", "--foreground", "--force", *own))
            wait_for((self.folder / "munge.socket").exists, 10)
            stack.enter_context(self.daemon("slurmctld", "-D"))
            stack.enter_context(self.daemon("slurmd", "-D", "-N", "node1"))
            wait_for(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"), 20)
            stack.callback(self.ask, "scancel", "--user=root")
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
            for left in family:
                if left.is_running():
                    left.kill()

    def ask(self, *command):
        """What a command of SLURM prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout

    def jobs(self):
        """Fields of every job that the controller remembers, by what it was for."""
        lines = self.ask("scontrol", "--oneliner", "show", "job").splitlines()
        fields = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
        return [job for job in fields if "JobId" in job]

    def queue(self):
        """Jobs that wait or run."""
        return self.ask("squeue", "-h", "-o", "%i").split()


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
