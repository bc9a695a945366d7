"""Campaigns: gradnas under kills, damaged files and wrong calls, seeded, with counts of what came.

    python benchmarks/campaigns kills --number 100
    python benchmarks/campaigns mutations --number 400
    python benchmarks/campaigns tensors --number 400      # checkpoints, weights, alphas: read alone
    python benchmarks/campaigns mutations --number 400 --only checkpoint.pt weights.safetensors
    python benchmarks/campaigns calls --number 300

Exit code 1 where anything was wrong; each such case is printed with what repeats it. Everything
runs in forks of one process, so that a case costs its work alone.
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
from kills import Kills
from mutations import Mutations, Tensors
from remembered import remember


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("campaign", choices=("kills", "mutations", "tensors", "calls"))
    parser.add_argument(
        "--number", type=int, default=100, help="kills, calls, or mutations of each file"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=(), help="programs, files or commands")
    options = parser.parse_args()
    _import_all()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        only = tuple(options.only)
        if options.campaign == "kills":
            kills = Kills(place, options.seed, only)
            kills.run(options.number)
            names = ", ".join(program.name for program in kills.programs)
            print(f"{kills.num_kills} kills over {names}: {len(kills.wrong)} runs ended wrong")
            wrong = kills.wrong
        elif options.campaign == "calls":
            calls = Calls(place, options.seed, only)
            calls.run(options.number)
            for command, counts in calls.counts.items():
                print(f"{command:10} refused {counts['refused']}, wrong {counts['wrong']}")
            print(f"{options.number} of {len(calls.calls)} wrong calls, {len(calls.wrong)} wrong")
            wrong = calls.wrong
        else:
            remember()
            campaign = Tensors if options.campaign == "tensors" else Mutations
            mutations = campaign(place, options.seed, only)
            mutations.run(options.number)
            print(f"in all: {mutations.total()}")
            wrong = mutations.wrong
    for line in wrong:
        print(f"WRONG {line}")
    print(f"{time.monotonic() - began:.0f} s, seed {options.seed}")
    return int(bool(wrong))


def _import_all() -> None:
    """What the forks share: everything is imported before the first of them.

    The time that the next step will take is not measured at each end of a search.
    """
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401

    import gradnas.cli.discover
    import gradnas.cli.latency
    import gradnas.cli.look
    import gradnas.cli.resume
    import gradnas.cli.search
    import gradnas.cli.train
    import gradnas.cli.trained
    import gradnas.cli.watch  # noqa: F401
    from gradnas.programs import following

    following.training_seconds = lambda *_: None


if __name__ == "__main__":
    sys.exit(main())
