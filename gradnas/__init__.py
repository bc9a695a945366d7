"""Gradient-based neural architecture search: one engine, five independent choices."""

from typing import TYPE_CHECKING, Any

from gradnas.architectures.chain import Chain as Chain
from gradnas.architectures.genotype import Genotype as Genotype
from gradnas.choice import Choice as Choice
from gradnas.choice import Draw as Draw
from gradnas.gradients import ArchitectureGradient as ArchitectureGradient
from gradnas.gradients import FirstOrder as FirstOrder
from gradnas.gradients import Implicit as Implicit
from gradnas.gradients import Reinforce as Reinforce
from gradnas.gradients import SGDStep as SGDStep
from gradnas.gradients import Unrolled as Unrolled
from gradnas.latency import LatencyTable as LatencyTable
from gradnas.latency import macs as macs
from gradnas.latency import measure as measure
from gradnas.latency import num_params as num_params
from gradnas.laws.primitives import Primitive as Primitive
from gradnas.objectives import CrossEntropy as CrossEntropy
from gradnas.objectives import ExpectedCost as ExpectedCost
from gradnas.objectives import Objective as Objective
from gradnas.objectives import TokenLikelihood as TokenLikelihood
from gradnas.optimizers import AlphaOptimizer as AlphaOptimizer
from gradnas.optimizers import WeightOptimizer as WeightOptimizer
from gradnas.relaxations import BinaryGates as BinaryGates
from gradnas.relaxations import GumbelSoftmax as GumbelSoftmax
from gradnas.relaxations import Relaxation as Relaxation
from gradnas.relaxations import Sigmoid as Sigmoid
from gradnas.relaxations import Softmax as Softmax
from gradnas.runs import NonFiniteError as NonFiniteError
from gradnas.search.result import SearchResult as SearchResult
from gradnas.search.search import Search as Search
from gradnas.spaces import DARTS_OPERATIONS as DARTS_OPERATIONS
from gradnas.spaces import OPERATIONS as OPERATIONS
from gradnas.spaces import ConvCell as ConvCell
from gradnas.spaces import MBConvChain as MBConvChain
from gradnas.spaces import RecurrentCell as RecurrentCell
from gradnas.spaces import RecurrentDropout as RecurrentDropout
from gradnas.spaces import Space as Space
from gradnas.spaces import Stage as Stage
from gradnas.spaces.derive import derive as derive
from gradnas.spaces.original import load_original_weights as load_original_weights
from gradnas.version import __version__ as __version__

if TYPE_CHECKING:
    from gradnas.laws.discover import LawSettings as LawSettings
    from gradnas.laws.equations import EquationClassifier as EquationClassifier
    from gradnas.laws.equations import EquationRegressor as EquationRegressor

_ON_DEMAND = {  # these need scikit-learn or sympy; searching one's own module does not
    "EquationClassifier": "gradnas.laws.equations",
    "EquationRegressor": "gradnas.laws.equations",
    "LawSettings": "gradnas.laws.discover",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module 'gradnas' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_ON_DEMAND[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ON_DEMAND])
