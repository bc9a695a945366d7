"""How long the command line and the package take to start: CPU seconds and peak memory.

    python benchmarks/startup.py                        this tree
    python benchmarks/startup.py --before ../earlier    and another one, in turn

Every line is started `--repeats` times, the lines and the trees in turn, so that what else the
machine does falls on all alike. CPU seconds (user and system) of the process are read from the
system when it has ended; shown are the median and the smallest and largest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CLI = "import sys; from gradnas.cli import main; sys.exit(main(sys.argv[1:]))"
LINES = {
    "gradnas --help": (CLI, "--help"),
    "gradnas search --help": (CLI, "search", "--help"),
    "gradnas latency measure --help": (CLI, "latency", "measure", "--help"),
    "gradnas serch": (CLI, "serch"),
    "gradnas search digits --epoch 3": (CLI, "search", "digits", "--epoch", "3"),
    "gradnas recipes": (CLI, "recipes"),
    "import torch": ("import torch",),
    "import gradnas": ("import gradnas",),
    "from gradnas import Search": ("from gradnas import Search",),
}


def started(tree: Path, line: tuple[str, ...]) -> tuple[float, float]:
    """CPU seconds and peak MiB of one start."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", *line],
        env=environment,
        cwd=tree,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, _, used = os.wait4(process.pid, 0)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="root of another tree, to compare with")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", nargs="*", choices=LINES, help="some of the lines")
    arguments = parser.parse_args()
    lines = {name: LINES[name] for name in arguments.only or LINES}
    trees = {"this tree": ROOT}
    if arguments.before is not None:
        trees = {"before": arguments.before.resolve(), **trees}

    seconds: dict[tuple[str, str], list[float]] = {}
    memory: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.repeats):
        for name, line in lines.items():
            for tree, root in trees.items():
                cpu, mib = started(root, line)
                seconds.setdefault((name, tree), []).append(cpu)
                memory.setdefault((name, tree), []).append(mib)

    print(f"n = {arguments.repeats}, Python {sys.version.split()[0]}")
    print(f"{'':32}{'':11}{'CPU s':>8}  {'(from - to)':15}{'MiB':>6}")
    for name, tree in seconds:
        values = seconds[name, tree]
        span = f"({min(values):.2f} - {max(values):.2f})"
        peak = statistics.median(memory[name, tree])
        print(f"{name:32}{tree:11}{statistics.median(values):8.2f}  {span:15}{peak:6.0f}")


if __name__ == "__main__":
    main()
