"""Objectives: network outputs -> loss and its named parts. Pick one."""

from gradnas.objectives.base import Objective as Objective
from gradnas.objectives.cost import ExpectedCost as ExpectedCost
from gradnas.objectives.cost import accuracy_latency_reward as accuracy_latency_reward
from gradnas.objectives.language import TokenLikelihood as TokenLikelihood
from gradnas.objectives.task import CrossEntropy as CrossEntropy
