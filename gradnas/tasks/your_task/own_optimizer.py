"""An optimiser and a schedule of the user's own."""

from __future__ import annotations

from typing import Any

import torch

from gradnas.runs import State
from gradnas.tasks.your_task.task import Task


class OwnSchedule:
    """The schedule of a task's own optimiser; nothing where it has none.

    Args:
        steps: of the whole run; None where nobody knows.

    Raises:
        ValueError: the schedule needs to know, or is none of torch that steps by itself.
    """

    def __init__(self, task: Task, optimizer: torch.optim.Optimizer, steps: int | None) -> None:
        self.scheduler: Any = None
        if task.optimizer is None or task.schedule is None:
            return
        if steps is None:
            raise ValueError(
                "the schedule of the task needs the number of steps, and the train loader does not "
                "say how many batches it has: give it a __len__"
            )
        self.scheduler = task.schedule(optimizer, steps)
        is_plateau = isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if is_plateau or not hasattr(self.scheduler, "step"):
            raise ValueError(
                "schedule(optimizer, steps) must give a scheduler whose step() needs no argument, "
                f"such as OneCycleLR, not {self.scheduler!r}"
            )

    def step(self) -> None:
        """After a step of the optimiser."""
        if self.scheduler is not None:
            self.scheduler.step()

    def state_dict(self) -> State:
        """Plain values; empty without a schedule."""
        return {} if self.scheduler is None else dict(self.scheduler.state_dict())

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        if self.scheduler is not None:
            self.scheduler.load_state_dict(dict(state))
