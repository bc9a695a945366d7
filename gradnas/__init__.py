"""Gradient-based neural architecture search: one engine, five independent choices."""

from typing import TYPE_CHECKING, Any

from gradnas.version import __version__ as __version__

if TYPE_CHECKING:
    from gradnas.architectures.chain import Chain as Chain
    from gradnas.architectures.dense_cell import DenseCell as DenseCell
    from gradnas.architectures.genotype import Genotype as Genotype
    from gradnas.choice import Choice as Choice
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
    from gradnas.laws.constraints import Constraint as Constraint
    from gradnas.laws.darts import DARTSClassifier as DARTSClassifier
    from gradnas.laws.darts import DARTSRegressor as DARTSRegressor
    from gradnas.laws.discover import LawSettings as LawSettings
    from gradnas.laws.engine.graph import EquationGraph as EquationGraph
    from gradnas.laws.equations import EquationClassifier as EquationClassifier
    from gradnas.laws.equations import EquationRegressor as EquationRegressor
    from gradnas.laws.primitives import Primitive as Primitive
    from gradnas.modules.call import Call as Call
    from gradnas.modules.draws import Draw as Draw
    from gradnas.modules.skip import Skip as Skip
    from gradnas.objectives import AlphaTerm as AlphaTerm
    from gradnas.objectives import BetaDecay as BetaDecay
    from gradnas.objectives import CrossEntropy as CrossEntropy
    from gradnas.objectives import DirichletKL as DirichletKL
    from gradnas.objectives import ExpectedCost as ExpectedCost
    from gradnas.objectives import Objective as Objective
    from gradnas.objectives import TokenLikelihood as TokenLikelihood
    from gradnas.objectives import ZeroOne as ZeroOne
    from gradnas.optimizers import AlphaOptimizer as AlphaOptimizer
    from gradnas.optimizers import WeightOptimizer as WeightOptimizer
    from gradnas.programs.your_task import run_search as run_search
    from gradnas.programs.your_task import run_training as run_training
    from gradnas.relaxations import BinaryGates as BinaryGates
    from gradnas.relaxations import Dirichlet as Dirichlet
    from gradnas.relaxations import GumbelSoftmax as GumbelSoftmax
    from gradnas.relaxations import PartialChannels as PartialChannels
    from gradnas.relaxations import Relaxation as Relaxation
    from gradnas.relaxations import Sigmoid as Sigmoid
    from gradnas.relaxations import Softmax as Softmax
    from gradnas.runs import NonFiniteError as NonFiniteError
    from gradnas.search.result import SearchResult as SearchResult
    from gradnas.search.search import Search as Search
    from gradnas.selections import CandidateSelection as CandidateSelection
    from gradnas.selections import PerturbationSelection as PerturbationSelection
    from gradnas.selections import ScoreSelection as ScoreSelection
    from gradnas.selections import Selection as Selection
    from gradnas.selections import Strongest as Strongest
    from gradnas.spaces import DARTS_OPERATIONS as DARTS_OPERATIONS
    from gradnas.spaces import OPERATIONS as OPERATIONS
    from gradnas.spaces import ConvCell as ConvCell
    from gradnas.spaces import MBConvChain as MBConvChain
    from gradnas.spaces import NasBench201 as NasBench201
    from gradnas.spaces import RecurrentCell as RecurrentCell
    from gradnas.spaces import RecurrentDropout as RecurrentDropout
    from gradnas.spaces import Space as Space
    from gradnas.spaces import Stage as Stage
    from gradnas.spaces.blocks.accelerate import accelerate as accelerate
    from gradnas.spaces.derive import derive as derive
    from gradnas.spaces.original import load_original_weights as load_original_weights
    from gradnas.spaces.replace import replace as replace
    from gradnas.stabilizers import AuxiliarySkip as AuxiliarySkip
    from gradnas.stabilizers import OperationFreezing as OperationFreezing
    from gradnas.stabilizers import PerturbedAlphas as PerturbedAlphas
    from gradnas.stabilizers import Stabilizer as Stabilizer
    from gradnas.tasks.your_task.measures import accuracy as accuracy
    from gradnas.tasks.your_task.measures import lower as lower
    from gradnas.tasks.your_task.task import Task as Task
    from gradnas.truth import Truth as Truth

# The same for Python, which imports a name when it is first asked for: torch takes seconds, and
# `gradnas --help` needs none of it; laws need sympy, and searching one's own module does not.
_MODULES = {
    "Chain": "gradnas.architectures.chain",
    "DenseCell": "gradnas.architectures.dense_cell",
    "Genotype": "gradnas.architectures.genotype",
    "Choice": "gradnas.choice",
    "Draw": "gradnas.modules.draws",
    "ArchitectureGradient": "gradnas.gradients",
    "FirstOrder": "gradnas.gradients",
    "Implicit": "gradnas.gradients",
    "Reinforce": "gradnas.gradients",
    "SGDStep": "gradnas.gradients",
    "Unrolled": "gradnas.gradients",
    "LatencyTable": "gradnas.latency",
    "macs": "gradnas.latency",
    "measure": "gradnas.latency",
    "num_params": "gradnas.latency",
    "Constraint": "gradnas.laws.constraints",
    "DARTSClassifier": "gradnas.laws.darts",
    "DARTSRegressor": "gradnas.laws.darts",
    "LawSettings": "gradnas.laws.discover",
    "EquationGraph": "gradnas.laws.engine.graph",
    "EquationClassifier": "gradnas.laws.equations",
    "EquationRegressor": "gradnas.laws.equations",
    "Primitive": "gradnas.laws.primitives",
    "Call": "gradnas.modules.call",
    "Skip": "gradnas.modules.skip",
    "AlphaTerm": "gradnas.objectives",
    "BetaDecay": "gradnas.objectives",
    "CrossEntropy": "gradnas.objectives",
    "DirichletKL": "gradnas.objectives",
    "ExpectedCost": "gradnas.objectives",
    "Objective": "gradnas.objectives",
    "TokenLikelihood": "gradnas.objectives",
    "ZeroOne": "gradnas.objectives",
    "AlphaOptimizer": "gradnas.optimizers",
    "WeightOptimizer": "gradnas.optimizers",
    "run_search": "gradnas.programs.your_task",
    "run_training": "gradnas.programs.your_task",
    "BinaryGates": "gradnas.relaxations",
    "Dirichlet": "gradnas.relaxations",
    "GumbelSoftmax": "gradnas.relaxations",
    "PartialChannels": "gradnas.relaxations",
    "Relaxation": "gradnas.relaxations",
    "Sigmoid": "gradnas.relaxations",
    "Softmax": "gradnas.relaxations",
    "NonFiniteError": "gradnas.runs",
    "SearchResult": "gradnas.search.result",
    "Search": "gradnas.search.search",
    "CandidateSelection": "gradnas.selections",
    "PerturbationSelection": "gradnas.selections",
    "ScoreSelection": "gradnas.selections",
    "Selection": "gradnas.selections",
    "Strongest": "gradnas.selections",
    "DARTS_OPERATIONS": "gradnas.spaces",
    "OPERATIONS": "gradnas.spaces",
    "ConvCell": "gradnas.spaces",
    "MBConvChain": "gradnas.spaces",
    "NasBench201": "gradnas.spaces",
    "RecurrentCell": "gradnas.spaces",
    "RecurrentDropout": "gradnas.spaces",
    "Space": "gradnas.spaces",
    "Stage": "gradnas.spaces",
    "accelerate": "gradnas.spaces.blocks.accelerate",
    "derive": "gradnas.spaces.derive",
    "load_original_weights": "gradnas.spaces.original",
    "AuxiliarySkip": "gradnas.stabilizers",
    "OperationFreezing": "gradnas.stabilizers",
    "PerturbedAlphas": "gradnas.stabilizers",
    "Stabilizer": "gradnas.stabilizers",
    "accuracy": "gradnas.tasks.your_task.measures",
    "lower": "gradnas.tasks.your_task.measures",
    "Task": "gradnas.tasks.your_task.task",
    "Truth": "gradnas.truth",
    "replace": "gradnas.spaces.replace",
}
# `from gradnas import *` takes what needs no extra.
__all__ = [name for name, module in _MODULES.items() if not module.startswith("gradnas.laws")]


def __getattr__(name: str) -> Any:
    import importlib.util

    if name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value  # found at once from now on
        return value
    # A room, as in `import gradnas; gradnas.runs`.
    room = f"{__name__}.{name}"
    if name.startswith("_") or importlib.util.find_spec(room) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(room)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
