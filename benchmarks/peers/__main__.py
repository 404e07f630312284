"""Install the peers: ``python -m benchmarks.peers [NAME ...]``; `make bench` measures them."""

import argparse
import subprocess
import venv

from benchmarks.peers import ENVIRONMENTS, PEERS, TORCH, python


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    # argparse checks the default of nargs="*", an empty list, too.
    parser.add_argument(
        "names", nargs="*", choices=[*PEERS, []], metavar="NAME", help="default: all"
    )
    for peer in parser.parse_args().names or PEERS:
        venv.create(ENVIRONMENTS / peer, with_pip=True)
        pip = [python(peer), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, TORCH, *PEERS[peer]], check=True)
        (ENVIRONMENTS / peer / "installed").touch()
        print(f"{peer}: {ENVIRONMENTS / peer}")


if __name__ == "__main__":
    main()
