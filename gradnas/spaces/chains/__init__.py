"""Chains of MBConv blocks: the space and its networks."""
