"""Forks of a process that has loaded the libraries: ``python -m tests.fork_server SOCKET``.

It ends when its stdin closes. A connection (see tests/forked.py) brings a command and its stdin,
stdout and stderr. It gets the number of the process and, at its end, its exit code. If it closes
before, the process is killed.
"""

import atexit
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

SIGNALS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGCHLD: signal.SIG_DFL,
}


def load() -> None:
    """Import what takes seconds, and load the kernels of a small training."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # after the other check no fork can use CUDA
    import torch
    import torch._dynamo  # by the first step of torch's own optimizers

    if find_spec("hydra") is None:  # the optimizers are tested where torch is installed alone
        return
    import numpy as np
    import wandb  # noqa: F401
    from hydra import compose, initialize_config_dir
    from hydra.core.plugins import Plugins

    import scripts.reporting.plots
    import scripts.running.run
    import scripts.train  # noqa: F401
    from data.sequences import Sequences
    from scripts.running.config import CONFIGS, checked
    from scripts.running.training import Training

    Plugins.instance()
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        config = checked(compose("train", ["data=file", "data.path=none", "model.maxlen=10"]))
    items = np.tile(np.arange(1, 9, dtype=np.int32), 8)
    training = Training(config, Sequences(items, np.arange(0, 65, 8), 40), torch.device("cpu"))
    if not torch.cuda.is_available():  # backward() starts a thread per GPU, which no fork has
        training.train_epoch(1)
        training.ranks("valid")


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A command and its stdin, stdout and stderr; None if the connection closes before."""
    start, files, *_ = socket.recv_fds(connection, 4, 3)
    content, missing = b"", int.from_bytes(start, "big")
    while start and len(content) < missing and (part := connection.recv(2**16)):
        content += part
    if not start or len(content) < missing:
        for file in files:
            os.close(file)
        return None
    return json.loads(content), files


def run(command: Mapping[str, Any], files: list[int]) -> NoReturn:
    """Become the command; this process is a fork."""
    for number, handler in SIGNALS.items():
        signal.signal(number, signal.SIG_IGN if number in command["ignored"] else handler)
    if "tqdm" in sys.modules:  # forks share its lock, and one that is killed may hold it
        sys.modules["tqdm"].tqdm.set_lock(threading.RLock())
    os.setsid()
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)
    os.environ.clear()
    os.environ.update(command["environment"])
    os.chdir(command["folder"])
    for folder in filter(None, reversed(os.environ.get("PYTHONPATH", "").split(os.pathsep))):
        sys.path.insert(0, folder)
        for module in Path(folder).glob("*.py"):  # it comes before what is loaded
            sys.modules.pop(module.stem, None)
    sys.path.insert(0, command["folder"])  # as Python's options -m and -c do
    sys.executable = command["python"]
    sys.stdout.reconfigure(line_buffering=bool(os.environ.get("PYTHONUNBUFFERED")))
    option, what, *arguments = command["words"]
    code: object = 0
    try:
        if option == "-m":
            sys.argv = [what, *arguments]
            sys.modules.pop(what, None)  # a command may be imported with the libraries
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.argv = [option, *arguments]
            exec(what, {"__name__": "__main__"})
    except SystemExit as end:
        code = end.code
    except BaseException:  # as the interpreter does
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def ended() -> dict[int, int]:
    """The processes that have ended, and their exit codes."""
    codes = {}
    with suppress(ChildProcessError):  # there are no others
        while (end := os.waitpid(-1, os.WNOHANG))[0]:
            codes[end[0]] = os.waitstatus_to_exitcode(end[1])
    return codes


def serve(listener: socket.socket) -> None:
    """Start a process for each connection, until stdin closes."""
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    while True:
        watched: list[Any] = [0, listener, woken, *running.values()]
        ready, _, _ = select.select(watched, [], [])
        if 0 in ready:
            break
        if woken in ready:
            woken.recv(2**16)
        for process, code in ended().items():
            with running.pop(process) as connection, suppress(OSError):
                connection.sendall(b"%d\n" % code)
        for process, connection in running.items():
            if connection in ready:
                os.kill(process, signal.SIGKILL)
        if listener in ready:
            connection, _ = listener.accept()
            received = receive(connection)
            if received is None:
                connection.close()
                continue
            command, files = received
            process = os.fork()
            if process == 0:
                signal.set_wakeup_fd(-1)
                for other in (listener, connection, woken, wake, *running.values()):
                    other.close()
                run(command, files)
            for file in files:
                os.close(file)
            running[process] = connection
            with suppress(OSError):  # it has closed: the next round kills the process
                connection.sendall(b"%d\n" % process)
    for process in running:
        os.kill(process, signal.SIGKILL)


def main() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(100)
        print("ready", flush=True)
        waiting: list[int | socket.socket] = [0, listener]
        if listener in select.select(waiting, [], [])[0]:  # the first command
            load()
            serve(listener)


if __name__ == "__main__":
    main()
