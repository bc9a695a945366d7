"""Settings for all tests: the networks here are so small that a second thread only gets in the
way."""

import os

import torch
from hypothesis import settings

from gradnas.programs import following

torch.set_num_threads(1)
# How long a training would take is told by one of its steps: more would take as long as the tests.
following.MOST_STEPS = 1

# No test depends on how fast the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

FEW = 4  # cases of a slow test


def pytest_collection_modifyitems(config, items):
    """Of slow tests of many cases an even part, unless all are asked for.

    All of them take half an hour on two cores: `make test-all` (or GRADNAS_ALL_TESTS=1) runs them,
    `make test` at most `FEW` of each, or a twelfth of those that have more.
    """
    if os.environ.get("GRADNAS_ALL_TESTS"):
        return
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
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))
