"""Architecture gradients: two losses in, d/d alpha out. Pick one."""

from gradnas.gradients.base import ArchitectureGradient as ArchitectureGradient
from gradnas.gradients.base import SGDStep as SGDStep
from gradnas.gradients.first_order import FirstOrder as FirstOrder
from gradnas.gradients.implicit import Implicit as Implicit
from gradnas.gradients.reinforce import Reinforce as Reinforce
from gradnas.gradients.unrolled import Unrolled as Unrolled
