"""Engines: where the trials of a study run. Pick one.

A trial is a command that finishes, resumes or fails by itself in a run folder of its own, so that
an engine does no more than start it, tell of its end, and stop it.
"""

from __future__ import annotations

from gradnas.engines.base import Ended, Engine, Job
from gradnas.engines.local import LocalEngine
from gradnas.engines.ray import RayEngine
from gradnas.engines.slurm import SlurmEngine

__all__ = ["Ended", "Engine", "Job", "LocalEngine", "RayEngine", "SlurmEngine"]
