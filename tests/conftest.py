"""Settings for all tests: the networks here are so small that a second thread only gets in the
way."""

import os
from collections import Counter

import torch
from hypothesis import settings

from gradnas.programs import following

torch.set_num_threads(1)
# At each end of a search some steps of a training of full size tell how long it would take:
# `programs/test_next_steps` has them back.
training_seconds = following.training_seconds
following.training_seconds = lambda *_: None

# No test depends on how fast the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

FEW = 3  # cases of a slow test
QUICK = 3  # tests of a file that stand for it in `make quick`


def pytest_collection_modifyitems(config, items):
    """Of slow tests of many cases an even part, unless all are asked for; of all a quick part."""
    left_out = set() if os.environ.get("GRADNAS_ALL_TESTS") else _cases_left_out(items)
    if os.environ.get("GRADNAS_QUICK_TESTS"):
        left_out |= set(items) - _quick(items)
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))
    if hasattr(config, "workerinput"):
        items.sort(key=_slow_in_files(items).__getitem__, reverse=True)


def _slow_in_files(items):
    """Of every item how many slow ones its file has.

    Several processes begin with the files that have most, and end with short ones: none waits long
    for another.
    """
    counts = Counter(item.path for item in items if item.get_closest_marker("slow"))
    return {item: counts[item.path] for item in items}


def _quick(items):
    """Of every file a few tests that are not slow, evenly, with their middle case.

    So every room has some, however many tests it gets.
    """
    functions = {}
    for item in items:
        if not item.get_closest_marker("slow"):
            cases = functions.setdefault(item.path, {}).setdefault(_name(item), [])
            cases.append(item)
    kept = set()
    for of_file in functions.values():
        all_cases = list(of_file.values())
        number = min(QUICK, len(all_cases))
        for k in range(number):
            cases = all_cases[(2 * k + 1) * len(all_cases) // (2 * number)]
            kept.add(cases[len(cases) // 2])
    return kept


def _name(item):
    return getattr(item, "originalname", None) or item.name


def _cases_left_out(items):
    """Of slow tests of many cases all but an even part.

    All of them take half an hour on two cores: `make test-all` (or GRADNAS_ALL_TESTS=1) runs them,
    `make test` at most `FEW` of each, or a twelfth of those that have more.
    """
    cases = {}
    for item in items:
        if item.get_closest_marker("slow") and hasattr(item, "callspec"):
            cases.setdefault((item.path, item.originalname), []).append(item)
    left_out = set()
    for same in cases.values():
        kept = max(FEW, len(same) // 12)
        for i, item in enumerate(same):
            if i and i * kept // len(same) == (i - 1) * kept // len(same):
                left_out.add(item)
    return left_out
