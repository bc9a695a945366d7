"""Which parts of a network are in train mode while it is searched."""

from __future__ import annotations

from torch import nn


class Modes:
    """The train mode of a network, and what the user has frozen.

    Args:
        root: the network.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self._frozen: list[nn.Module] = []
        self._take_note()

    def _take_note(self) -> None:
        # A part in eval mode inside a network in train mode was put there.
        if self.root.training:
            self._frozen = [module for module in self.root.modules() if not module.training]

    def train(self) -> None:
        """Put a network that is in eval mode into train mode, without what is frozen.

        Frozen is a part that was in eval mode while the network was in train mode (when the search
        was made, or at the last call), and one in eval mode none of whose parameters is trained.
        A network that is in train mode is left as it is.
        """
        if self.root.training:
            self._take_note()
            return
        frozen = list(self._frozen)
        for module in self.root.modules():
            trained = [p.requires_grad for p in module.parameters()]
            if not module.training and trained and not any(trained):
                frozen.append(module)
        # By its own method: some classes keep parts of themselves in eval mode there.
        self.root.train()
        for module in frozen:
            module.eval()
