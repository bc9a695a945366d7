"""The golden program: one tiny run of every program of gradnas, its files and outputs hashed.

    python benchmarks/golden.py --save before.txt --keep before     # on the tree as it was
    python benchmarks/golden.py --compare before.txt --keep after   # after a change of form alone
    diff -r before after                                            # what it was that changed

Hashes depend on the processor and on the versions of torch and Python: compare on one machine, in
one environment. Commands go through `gradnas.cli.main` and the library through its public names, so
that files may move underneath. Every command runs in a fork of this process with one thread: as
isolated as a process of its own, without its start.

What differs between two runs of the same tree is left out, as `golden_contents.py` says.
Not run: several processes, torch.compile, CUDA and its graphs, loader processes, the hub.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
os.environ.update(COLUMNS="100", MPLBACKEND="agg", HF_HUB_OFFLINE="1")

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree this file is in

import golden_library
import golden_runs
import torch
from golden_contents import hashes, short
from golden_forks import Golden

GROUPS: dict[str, Callable[[Golden], None]] = {
    "search-images": golden_runs.search_images,
    "search-chains": golden_runs.search_chains,
    "train-images": golden_runs.train_images,
    "text": golden_runs.text,
    "laws": golden_runs.laws,
    "pages": golden_runs.pages,
    "resume": golden_runs.resumed,
    "words": golden_runs.words,
    "library": golden_library.library,
}
# what a group reads of the runs of others
NEEDS = {
    "train-images": ("search-images", "search-chains"),
    "pages": ("search-images", "search-chains", "train-images", "text", "laws"),
    "resume": ("search-images", "search-chains", "train-images", "text"),
    "words": ("search-images", "train-images", "text", "laws"),
}


def wanted(only: Iterable[str]) -> list[str]:
    """The groups asked for and those they read from, in order."""
    ahead = list(only) or list(GROUPS)
    asked = set()
    while ahead:
        group = ahead.pop()
        asked.add(group)
        ahead += NEEDS.get(group, ())
    return [group for group in GROUPS if group in asked]


def preload() -> None:
    """Slow libraries, once, so that no fork has to load them again."""
    import matplotlib.figure
    import networkx
    import onnx
    import onnxruntime
    import onnxscript
    import pandas
    import sklearn.datasets
    import sympy

    loaded = (matplotlib, networkx, onnx, onnxruntime, onnxscript, pandas, sklearn, sympy)
    assert all(loaded)


def main() -> int:
    """Run, hash, and print or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", type=Path, help="write the lines to this file")
    parser.add_argument("--compare", type=Path, help="print only what differs from this file")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=[], metavar="NAME")
    parser.add_argument("--keep", type=Path, help="keep what the runs write in this new folder")
    parser.add_argument("--times", action="store_true", help="seconds of each run, on stderr")
    options = parser.parse_args()
    # The runs have another current folder.
    save = options.save and options.save.resolve()
    compare = options.compare and options.compare.resolve()
    torch.set_num_threads(1)
    preload()
    began = time.monotonic()
    golden = Golden()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"{folder} is not empty")
        os.chdir(folder)
        groups = wanted(options.only)
        for group in groups:
            GROUPS[group](golden)
        found = hashes(golden.exits)
        os.chdir("/")
    lines = [f"{name}  {found[name]}" for name in sorted(found)]
    lines.append(f"all  {short(chr(10).join(lines).encode())}")
    if options.times:
        for name, seconds in sorted(golden.seconds.items(), key=lambda item: -item[1]):
            print(f"{seconds:7.2f} s  {name}", file=sys.stderr)
    print(f"{len(lines)} lines in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if save is not None:
        save.write_text("\n".join(lines) + "\n")
    if compare is None:
        print("\n".join(lines))
        return 0
    return compared(compare.read_text().splitlines(), lines, complete=len(groups) == len(GROUPS))


def compared(before: Iterable[str], after: Iterable[str], *, complete: bool) -> int:
    """Print what differs; 1 where anything does. What was not run is passed over."""
    old = dict(line.split("  ") for line in before)
    new = dict(line.split("  ") for line in after)
    if not complete:
        old = {name: value for name, value in old.items() if name in new}
        old.pop("all", None)
        new.pop("all", None)
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    for name in changed:
        print(f"{name}  {old.get(name, 'not there')} -> {new.get(name, 'not there')}")
    if changed:
        print(f"{len(changed)} of {len(new)} lines differ")
        return 1
    print(f"{len(new)} lines, all as before")
    return 0


if __name__ == "__main__":
    sys.exit(main())
