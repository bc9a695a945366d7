"""Stabilizers: what keeps a search from collapsing, in the step of the weights. Any number."""

from gradnas.stabilizers.auxiliary_skip import AuxiliarySkip as AuxiliarySkip
from gradnas.stabilizers.base import Stabilizer as Stabilizer
from gradnas.stabilizers.operation_freezing import OperationFreezing as OperationFreezing
from gradnas.stabilizers.perturbed_alphas import PerturbedAlphas as PerturbedAlphas
