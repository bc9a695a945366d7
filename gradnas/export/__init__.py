"""Trained networks for use elsewhere: torch programs, ONNX, readable source; for any network."""
