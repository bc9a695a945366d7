"""The command line: `gradnas COMMAND ...`.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or input (one sentence on stderr), 130
interrupted and saved, 141 the reader of the output went away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import subcommand

from gradnas.cli.commands.data import DataCommand
from gradnas.cli.commands.discover import DiscoverCommand
from gradnas.cli.commands.latency import LatencyCommand
from gradnas.cli.commands.look import DrawCommand, RecipesCommand, ReportCommand
from gradnas.cli.commands.resume import ResumeCommand
from gradnas.cli.commands.search import SearchCommand
from gradnas.cli.commands.train import TrainCommand
from gradnas.cli.commands.trained import EvaluateCommand, ExportCommand, GenerateCommand
from gradnas.cli.options import Command, check_options
from gradnas.cli.traces import told, trace_of

AnyCommand = (
    Annotated[SearchCommand, subcommand("search")]
    | Annotated[ResumeCommand, subcommand("resume")]
    | Annotated[TrainCommand, subcommand("train")]
    | Annotated[EvaluateCommand, subcommand("evaluate")]
    | Annotated[GenerateCommand, subcommand("generate")]
    | Annotated[DrawCommand, subcommand("draw")]
    | Annotated[ReportCommand, subcommand("report")]
    | Annotated[ExportCommand, subcommand("export")]
    | Annotated[LatencyCommand, subcommand("latency")]
    | Annotated[DataCommand, subcommand("data")]
    | Annotated[DiscoverCommand, subcommand("discover")]
    | Annotated[RecipesCommand, subcommand("recipes")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    command = parsed(arguments)
    try:
        return _carry_out(command)
    except KeyboardInterrupt:
        print("gradnas: stopped", file=sys.stderr)  # a run that saves says more itself
        return 130


def parsed(arguments: Sequence[str] | None = None) -> Command:
    """The command that is meant. SystemExit after help, or after saying what is mistyped."""
    description = "Gradient-based neural architecture search."
    form: Any = AnyCommand  # tyro takes a union, which type checkers do not take for a class
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone)
    return tyro.cli(form, prog="gradnas", description=description, args=arguments, config=markers)


def _carry_out(command: Command) -> int:
    try:
        check_options(command)
    except ValueError as error:
        print(f"gradnas: {error}", file=sys.stderr)
        return 2

    # Here, because torch takes seconds to import, and what is mistyped is told at once.
    import torch

    from gradnas import distributed, runs

    try:
        command.run()
        sys.stdout.flush()  # a closed pipe shows here, and not when Python ends
    except BrokenPipeError:
        # Who reads has enough, as in `gradnas recipes | head`. What is left to write goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except runs.Interrupted:
        return 130
    except ValueError as error:
        if os.environ.get("GRADNAS_TRACEBACK"):
            raise
        print(told(error), file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        print(f"gradnas: out of memory ({reason}); try a smaller --batch-size", file=sys.stderr)
        return 1
    except Exception as error:
        trace = trace_of(error)
        if trace is None or os.environ.get("GRADNAS_TRACEBACK"):
            raise
        print(trace, file=sys.stderr)  # of code of the user's own
        return 2
    finally:
        distributed.stop()
    return 0
