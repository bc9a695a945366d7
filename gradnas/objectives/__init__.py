"""Objectives: network outputs -> loss and its named parts. Pick one."""

from gradnas.objectives.base import Objective as Objective
from gradnas.objectives.language import TokenLikelihood as TokenLikelihood
from gradnas.objectives.task import CrossEntropy as CrossEntropy
