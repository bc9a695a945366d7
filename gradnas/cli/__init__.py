"""The command line: one file a command."""

from gradnas.cli.main import main as main
