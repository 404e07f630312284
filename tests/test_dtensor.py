"""Models that torch distributes over processes: DDP, ZeRO, tensor parallel, FSDP2 and FSDP1."""

import os
import subprocess

import pytest

from tests.forked import REPOSITORY, python


@pytest.mark.slow
def test_two_processes_give_the_result_of_one_or_an_error(tmp_path):
    command = [python(), "-m", "tests.distributed_worker"]
    running = [
        subprocess.Popen(
            [*command, rank, str(tmp_path / "store")],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        for process in running:
            out, error = process.communicate(timeout=240)
            assert process.returncode == 0, error
            assert out.split()[-1] == "check_fsdp1"
    finally:
        for process in running:
            process.kill()
