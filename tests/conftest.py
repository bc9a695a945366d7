"""Settings for all tests: the networks here are so small that a second thread only gets in the
way."""

import torch

from gradnas.programs import following

torch.set_num_threads(1)
# How long a training would take is told by one of its steps: more would take as long as the tests.
following.MOST_STEPS = 1
