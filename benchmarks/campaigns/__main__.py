"""Campaigns: gradnas under kills, damaged files and wrong calls, seeded, with counts of what came.

    python benchmarks/campaigns kills --number 100
    python benchmarks/campaigns mutations --number 400
    python benchmarks/campaigns tensors --number 400      # checkpoints, weights, alphas: read alone
    python benchmarks/campaigns mutations --number 400 --only checkpoint.pt weights.safetensors
    python benchmarks/campaigns calls --number 300

Exit code 1 where anything was wrong; each such case is printed with what repeats it. Everything
runs in forks of one process, so that a case costs its work alone. In pieces, each of which goes on
where the one before stopped (exit code 3: not yet done):

    python benchmarks/campaigns mutations --number 400 --keep FOLDER --minutes 4
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
os.environ.update(COLUMNS="100", MPLBACKEND="agg", HF_HUB_OFFLINE="1")

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the tree this file is in

from calls import Calls
from kept import Kept
from kills import Kills
from mutations import Mutations, Tensors

CAMPAIGNS = {"kills": Kills, "mutations": Mutations, "tensors": Tensors, "calls": Calls}
UNFINISHED = 3  # exit code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument(
        "--number", type=int, default=100, help="kills, calls, or mutations of each file"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=(), help="programs, files or commands")
    parser.add_argument("--keep", type=Path, help="folder to go on from, and to keep things in")
    parser.add_argument("--minutes", type=float, help="stop after so many, not yet done")
    options = parser.parse_args()
    began = time.monotonic()
    _import_all()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) if options.keep is None else options.keep
        place.mkdir(parents=True, exist_ok=True)
        until = None if options.minutes is None else began + 60.0 * options.minutes
        kept = Kept(place.resolve(), until)
        campaign = CAMPAIGNS[options.campaign](kept, options.seed, tuple(options.only))
        is_whole = campaign.run(options.number)
        for line in campaign.counted():
            print(line)
    for line in campaign.wrong:
        print(f"WRONG {line}")
    used = os.times()
    cpu_seconds = used.user + used.system + used.children_user + used.children_system
    seconds = time.monotonic() - began
    print(f"{seconds:.0f} s, of processors {cpu_seconds:.0f} s, seed {options.seed}")
    if campaign.wrong:
        return 1
    return 0 if is_whole else UNFINISHED


def _import_all() -> None:
    """What the forks share: everything is imported before the first of them.

    The time that the next step will take is not measured at each end of a search.
    """
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import torch._dynamo  # noqa: F401, which the first optimiser imports

    import gradnas.cli.data
    import gradnas.cli.discover
    import gradnas.cli.latency
    import gradnas.cli.look
    import gradnas.cli.resume
    import gradnas.cli.search
    import gradnas.cli.study
    import gradnas.cli.study_trial
    import gradnas.cli.study_view
    import gradnas.cli.train
    import gradnas.cli.trained
    import gradnas.cli.watch  # noqa: F401
    from gradnas.programs import following

    following.training_seconds = lambda *_: None


if __name__ == "__main__":
    sys.exit(main())
