"""Kernels that begin warm: forked from one process that has made the imports once for a study.

A kernel takes seconds to import torch and its kin, a good part of a small run. So `run_study`
starts one process, `python -m lib.study.warm`, that imports them, computes nothing, starts no
thread, and forks where a stage asks for a kernel: the same notebook by the same papermill, to the
same bits. Where there is no such process (on a cluster, where it was killed, or for stages of more
threads, which libraries are told when they are loaded) kernels start as ever.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread

from lib import store

ASK = "BATCHES_KERNELS"  # environment variable: the socket where a stage asks for a kernel
# Errors alone of a kernel's log: that sockets on this machine are not encrypted is no news.
ARGUMENTS = ("--IPKernelApp.log_level=ERROR",)
LAUNCHER = "ipykernel_launcher"  # the program that a kernel is elsewhere; its arguments follow
# What the notebooks import, at once or later.
MODULES = (
    "ipykernel.kernelapp", "lib.trainer", "lib.analysis.claims", "lib.analysis.plots",
    "lib.study.prepare", "lib.study.look", "lib.study.results", "matplotlib.backends.backend_agg",
    "transformers.models.bert.modeling_bert",
)  # fmt: skip


# --- whoever starts it -------------------------------------------------------------------------


@contextmanager
def kernels(folder: str, log: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A process that forks kernels, with its socket in `folder`, while this lasts, and no longer
    than we live; yields what stages find it by. Kernels end with their stages.

    log: what it says. environment: of kernels, beside our own."""
    place = os.path.join(folder, "kernels")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, short(place) as name:
        listener.bind(name)
        listener.listen()
        process = _started(listener.fileno(), log, environment)
    try:
        yield {ASK: place}
    finally:
        process.kill()
        process.communicate()


def _started(listener: int, log: Path, environment: dict[str, str]) -> subprocess.Popen:
    """The process, which answers at a listening socket, given by its descriptor."""
    store.make_folder(log.parent)
    with open(log, "wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "lib.study.warm", str(listener)],
            cwd=store.ROOT,
            env=os.environ | inherited(1) | _for_imports() | environment,
            pass_fds=[listener],
            stdin=subprocess.PIPE,  # ends when we do
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


@contextmanager
def short(place: str) -> Iterator[str]:
    """Another name of a path, of few letters, as sockets must have."""
    folder = os.open(os.path.dirname(place), os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(place)}"
    finally:
        os.close(folder)


def inherited(threads: int) -> dict[str, str]:
    """Environment of a kernel: its libraries' number of threads, and no progress bars, which in a
    notebook that nobody watches leave hundreds of lines. The kernel is this environment's own."""
    own = {"JUPYTER_PREFER_ENV_PATH": "1", "TQDM_DISABLE": "1"}
    names = ("OMP", "MKL", "OPENBLAS", "RAYON")
    return own | {f"{name}_NUM_THREADS": str(threads) for name in names}


def _for_imports() -> dict[str, str]:
    """What imports look for: where figures go, as a kernel sets it; that pyarrow's allocator is not
    to start a thread, which a fork would lack; and that to look for a GPU is not to start CUDA,
    which no fork could use."""
    backend = os.environ.get("MPLBACKEND") or "module://matplotlib_inline.backend_inline"
    allocator = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
    return {"MPLBACKEND": backend, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"} | allocator


# --- the process -------------------------------------------------------------------------------


def serve(number: int) -> None:
    """Import, then fork a kernel for each stage that asks at a socket, given by its descriptor,
    until stdin ends. A kernel returns from here when it is done."""
    with socket.socket(fileno=number) as listener:
        for name in MODULES:
            import_module(name)
        if not _may_fork():
            print("kernels start by themselves: there are threads here, or CUDA")
            return
        gc.freeze()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for kernels here
        while sys.stdin not in select.select([sys.stdin, listener], [], [])[0]:
            connection = listener.accept()[0]
            if not os.fork():
                break
            connection.close()
        else:
            return
    _be_kernel(connection)


def _may_fork() -> bool:
    """Whether what a fork would lack is not there: other threads, and CUDA."""
    import torch

    return len(os.listdir("/proc/self/task")) == 1 and not torch.cuda.is_initialized()


def _be_kernel(connection: socket.socket) -> None:
    """Become the kernel that a stage asks for over its connection, and live as long as it."""
    from ipykernel.kernelapp import IPKernelApp

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    order, streams, *_ = socket.recv_fds(connection, 2**16, 2)
    order = json.loads(order)
    for stream, number in zip((os.open(os.devnull, os.O_RDONLY), *streams), range(3), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["cwd"])
    connection.send(b"%d" % os.getpid())
    Thread(target=_end_with, args=[connection], daemon=True).start()
    sys.argv = [LAUNCHER, *order["arguments"]]
    # Its own watch is over whoever forked it, who may go before; 1 is "nobody to watch".
    app = IPKernelApp.instance(parent_handle=1)
    app.initialize(order["arguments"])
    app.start()


def _end_with(connection: socket.socket) -> None:
    """End at once when the other side of a connection does, however that came about."""
    connection.recv(1)
    os._exit(1)


# --- a stage -----------------------------------------------------------------------------------


class Forked:
    """A kernel that the process has forked for us, as jupyter_client knows processes."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], cwd: str):
        """Raises OSError where there is no process to fork it."""
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with short(os.environ[ASK]) as name:
            self.connection.connect(name)
        order = json.dumps({"arguments": arguments, "cwd": cwd})
        socket.send_fds(self.connection, [order.encode()], [1, 2])
        answer = self.connection.recv(20)
        if not answer:
            raise ConnectionResetError("no kernel was forked")
        self.pid = int(answer)
        self.handle = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        """None while it lives, else -1: how it ended, only the process that forked it could say."""
        return -1 if select.select([self.handle], [], [], 0)[0] else None

    def wait(self) -> int:
        """Wait for its end; -1."""
        select.select([self.handle], [], [])
        return -1

    def send_signal(self, number: int) -> None:
        """Send it a signal. Raises ProcessLookupError where it has ended."""
        signal.pidfd_send_signal(self.handle, number)

    def terminate(self) -> None:
        """Ask it to end. Raises ProcessLookupError where it has ended."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it. Raises ProcessLookupError where it has ended."""
        self.send_signal(signal.SIGKILL)


def kernel_manager() -> type:
    """The class of kernel managers for a notebook that may have a warm kernel."""
    from jupyter_client.manager import AsyncKernelManager

    class WarmKernelManager(AsyncKernelManager):
        async def _async_launch_kernel(self, kernel_cmd: list[str], **options) -> None:
            arguments = kernel_cmd[kernel_cmd.index(LAUNCHER) + 1 :]
            cwd = str(options.get("cwd") or os.getcwd())
            try:
                process = Forked(arguments, cwd)
            except OSError:
                return await super()._async_launch_kernel(kernel_cmd, **options)
            provisioner = self.provisioner
            provisioner.process, provisioner.pid = process, process.pid
            provisioner.pgid, provisioner.cwd = process.pid, cwd
            self._reconcile_connection_info(provisioner.connection_info)

    return WarmKernelManager


if __name__ == "__main__":
    sys.modules.setdefault("rfc3987_syntax", None)  # see lib/study/stage.py
    serve(int(sys.argv[1]))
