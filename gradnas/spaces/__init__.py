"""Search spaces: what can be built, as a supernet and as a plain network. Pick one."""

from gradnas.spaces.base import Space as Space
from gradnas.spaces.base import Supernet as Supernet
from gradnas.spaces.conv_cell import DARTS_OPERATIONS as DARTS_OPERATIONS
from gradnas.spaces.conv_cell import ConvCell as ConvCell
from gradnas.spaces.conv_network import ConvNetwork as ConvNetwork
from gradnas.spaces.operations import OPERATIONS as OPERATIONS
from gradnas.spaces.your_module import ModuleSupernet as ModuleSupernet
