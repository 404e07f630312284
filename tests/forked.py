"""A program that starts Python in 0.1 s instead of 4 s: as a fork of a process with all libraries.

Commands that start Python by ``sys.executable`` start forks, too.
"""

import atexit
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = "SIMBA_TEST_PYTHON"  # the program of all workers of pytest-xdist
# It asks the server for a process, passes signals on to it and ends as it does. If it is killed,
# its connection closes, and the server kills the process.
PROGRAM = """\
#!{python} -IS
import json, os, signal, socket, sys
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
if sys.argv[1] == "-u":
    os.environ["PYTHONUNBUFFERED"] = sys.argv.pop(1)
if sys.argv[1] not in ("-m", "-c"):  # Python's other options
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
ignored = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN]
command = {{"words": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
content = json.dumps(command | {{"python": sys.argv[0], "ignored": ignored}}).encode()
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until there is a process to pass them on to
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [len(content).to_bytes(4, "big")], [0, 1, 2])
server.sendall(content)
answers = server.makefile()
process = int(answers.readline())
for number in set(SIGNALS) - set(ignored):
    signal.signal(number, lambda number, _: os.kill(process, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@cache
def python() -> str:
    """The program's path.

    It takes ``-m NAME ARGUMENTS`` and ``-c CODE ARGUMENTS`` as Python does, also after ``-u``.
    What Python and the libraries read from the environment when they start is that of the tests.
    """
    if given := os.environ.get(SHARED):
        return given
    folder = Path(tempfile.mkdtemp())
    program, address = folder / "python", folder / "socket"
    program.write_text(PROGRAM.format(python=sys.executable, address=str(address)))
    program.chmod(0o755)
    command = [sys.executable, "-m", "tests.fork_server", str(address)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes)
    assert server.stdout.readline() == "ready\n"
    atexit.register(server.communicate)
    return str(program)
