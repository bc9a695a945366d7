"""Objectives: network outputs -> loss and its named parts; terms of the alphas' loss. Pick."""

from gradnas.objectives.base import Objective as Objective
from gradnas.objectives.beta_decay import BetaDecay as BetaDecay
from gradnas.objectives.cost import ExpectedCost as ExpectedCost
from gradnas.objectives.cost import accuracy_latency_reward as accuracy_latency_reward
from gradnas.objectives.dirichlet_kl import DirichletKL as DirichletKL
from gradnas.objectives.language import TokenLikelihood as TokenLikelihood
from gradnas.objectives.task import CrossEntropy as CrossEntropy
from gradnas.objectives.terms import AlphaTerm as AlphaTerm
from gradnas.objectives.zero_one import ZeroOne as ZeroOne
