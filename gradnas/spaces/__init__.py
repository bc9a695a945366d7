"""Search spaces: what can be built, as a supernet and as a plain network. Pick one."""

from gradnas.spaces.base import ImageSpace as ImageSpace
from gradnas.spaces.base import Space as Space
from gradnas.spaces.base import Supernet as Supernet
from gradnas.spaces.base import TextSpace as TextSpace
from gradnas.spaces.cells.conv_cell import DARTS_OPERATIONS as DARTS_OPERATIONS
from gradnas.spaces.cells.conv_cell import ConvCell as ConvCell
from gradnas.spaces.cells.conv_network import ConvNetwork as ConvNetwork
from gradnas.spaces.chains.mbconv_chain import MBConvChain as MBConvChain
from gradnas.spaces.chains.mbconv_network import ChainNetwork as ChainNetwork
from gradnas.spaces.chains.shape import Stage as Stage
from gradnas.spaces.chains.shape import make_divisible as make_divisible
from gradnas.spaces.chains.supernet import ChainSupernet as ChainSupernet
from gradnas.spaces.nas_bench_201.network import NasBench201Network as NasBench201Network
from gradnas.spaces.nas_bench_201.space import NasBench201 as NasBench201
from gradnas.spaces.operations import OPERATIONS as OPERATIONS
from gradnas.spaces.recurrent.recurrence import ACTIVATIONS as ACTIVATIONS
from gradnas.spaces.recurrent.recurrent_cell import RecurrentCell as RecurrentCell
from gradnas.spaces.recurrent.recurrent_cell import RecurrentSupernet as RecurrentSupernet
from gradnas.spaces.recurrent.recurrent_network import LanguageModel as LanguageModel
from gradnas.spaces.recurrent.recurrent_network import RecurrentDropout as RecurrentDropout
from gradnas.spaces.recurrent.recurrent_network import RecurrentNetwork as RecurrentNetwork
from gradnas.spaces.your_module import ModuleSupernet as ModuleSupernet
