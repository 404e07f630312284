"""``python -m NAME`` in a fork of a process that has imported torch: in 0.2 s instead of 3 s."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import traceback
from pathlib import Path

LIMIT = 300  # seconds
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.preloaded"])


def run_module(
    name: str, *arguments: str | Path, cwd: Path, env: dict[str, str], output: Path
) -> subprocess.CompletedProcess[str]:
    """Run a module as ``__main__``, as ``python -m`` does.

    Python itself and the libraries of tests/preloaded.py do not read ``env`` again.

    Args:
        cwd: the working folder.
        env: all environment variables of the process.
        output: a folder for the process's stdout and stderr.
    """
    files = output / "stdout", output / "stderr"
    process = SERVER.Process(target=_child, args=(name, arguments, cwd, env, *files))
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{name} did not end; does it start Python? It then needs fresh=True")
    stdout, stderr = (file.read_text() for file in files)
    assert process.exitcode is not None
    return subprocess.CompletedProcess([name, *arguments], process.exitcode, stdout, stderr)


def _child(
    name: str,
    arguments: tuple[str | Path, ...],
    cwd: Path,
    env: dict[str, str],
    stdout: Path,
    stderr: Path,
) -> None:
    for descriptor, path in (1, stdout), (2, stderr):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), descriptor)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    os.chdir(cwd)
    sys.argv = [name, *map(str, arguments)]
    sys.modules.pop(name, None)  # a command may be imported with the libraries
    code: object = 0
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:  # as the interpreter does
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
