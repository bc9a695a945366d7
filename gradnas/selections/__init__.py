"""Selections: how the decision of a search is had in the end. Pick one."""

from gradnas.selections.base import Selection as Selection
from gradnas.selections.candidates import CandidateSelection as CandidateSelection
from gradnas.selections.perturbation import PerturbationSelection as PerturbationSelection
from gradnas.selections.scores import ScoreSelection as ScoreSelection
from gradnas.selections.strongest import Strongest as Strongest
