"""Relaxations: from alphas to mixing weights. Pick one."""

from gradnas.relaxations.base import Relaxation as Relaxation
from gradnas.relaxations.binary_gates import BinaryGates as BinaryGates
from gradnas.relaxations.dirichlet import Dirichlet as Dirichlet
from gradnas.relaxations.gumbel import GumbelSoftmax as GumbelSoftmax
from gradnas.relaxations.partial_channels import PartialChannels as PartialChannels
from gradnas.relaxations.sigmoid import Sigmoid as Sigmoid
from gradnas.relaxations.softmax import Softmax as Softmax
