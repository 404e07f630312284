"""A stand-in for Slurm: sbatch starts the tasks of an array at once, on this machine."""

from pathlib import Path

COMMANDS = {
    "sbatch": """\
        cp "$1" "$(dirname "$0")/batch"
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
        export SLURM_JOB_ID=$$ SLURM_ARRAY_JOB_ID=$$ SLURM_NTASKS=1 SLURM_PROCID=0
        for task in $(seq 0 "$last"); do
          SLURM_ARRAY_TASK_ID=$task bash "$1" > /dev/null 2>&1 &
        done
        echo Submitted batch job $$
        """,
    "srun": """\
        while [ "${1#--}" != "$1" ]; do
          case $1 in --unbuffered) shift ;; *) shift 2 ;; esac
        done
        exec "$@" >> "$(dirname "$0")/log" 2>&1
        """,
    "sacct": "echo 'JobID|State|NodeList'",
}


def install(folder: Path) -> None:
    """Write the commands to a folder, for PATH. It will hold the last batch file and a log."""
    folder.mkdir()
    for name, text in COMMANDS.items():
        path = folder / name
        path.write_text("#!/bin/bash\n" + text)
        path.chmod(0o755)
