"""`python -m gradnas.programs.handed_on SCRATCH RUN`: one training on a task that was handed on.

Started by a training from Python, for the random networks beside it.
"""

from __future__ import annotations

import signal
import sys

from gradnas import runs
from gradnas.programs.side_by_side import handed_on
from gradnas.programs.your_task import run_training


def main(scratch: str, folder: str) -> int:
    """Bring the run in a folder to its end; the exit code."""
    task = handed_on(scratch)
    found = str(runs.Run(folder).path / runs.GENOTYPE)
    try:
        run_training(task, found, out=folder, resume=True)
    except (runs.Interrupted, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except ValueError as error:
        print(f"gradnas: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
