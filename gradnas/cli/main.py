"""The command line: `gradnas COMMAND ...`.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or input (one sentence on stderr), 130
interrupted and saved, 141 the reader of the output went away.
"""

from __future__ import annotations

import os
import sys
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import subcommand

from gradnas.cli.commands.data import DataCommand
from gradnas.cli.commands.discover import DiscoverCommand
from gradnas.cli.commands.latency import LatencyCommand
from gradnas.cli.commands.look import DrawCommand, RecipesCommand, ReportCommand, WatchCommand
from gradnas.cli.commands.resume import ResumeCommand
from gradnas.cli.commands.search import SearchCommand
from gradnas.cli.commands.study import StudyCommand
from gradnas.cli.commands.train import TrainCommand
from gradnas.cli.commands.trained import EvaluateCommand, ExportCommand, GenerateCommand
from gradnas.cli.lines import close_broken, flush, line, open_streams
from gradnas.cli.options import Command, check_options
from gradnas.cli.traces import told, trace_of
from gradnas.cli.usage import one_sentence, shortened
from gradnas.config import did_you_mean

# What `gradnas` alone prints.
OVERVIEW = """\
gradnas: gradient-based neural architecture search

  gradnas search my_task.py                 inside your own model: docs/tasks.md
  gradnas search digits                     a cell, on embedded images
  gradnas search text                       a recurrent cell, on embedded text
  gradnas discover data.csv --target y      the law in a table
  gradnas latency measure proxyless-digits  milliseconds of operations, here
  gradnas train RUN                         what was found, beside random ones
  gradnas study digits --seeds 4            what a search is worth, repeated
  gradnas report RUN                        a page; also draw, watch, evaluate
  gradnas export RUN -o model.onnx          or .pt2, or readable .py
  gradnas recipes                           named settings; see also --help"""

AnyCommand = (
    Annotated[SearchCommand, subcommand("search")]
    | Annotated[ResumeCommand, subcommand("resume")]
    | Annotated[TrainCommand, subcommand("train")]
    | Annotated[EvaluateCommand, subcommand("evaluate")]
    | Annotated[GenerateCommand, subcommand("generate")]
    | Annotated[DrawCommand, subcommand("draw")]
    | Annotated[ReportCommand, subcommand("report")]
    | Annotated[WatchCommand, subcommand("watch")]
    | Annotated[ExportCommand, subcommand("export")]
    | Annotated[LatencyCommand, subcommand("latency")]
    | Annotated[DataCommand, subcommand("data")]
    | Annotated[DiscoverCommand, subcommand("discover")]
    | Annotated[StudyCommand, subcommand("study")]
    | Annotated[RecipesCommand, subcommand("recipes")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    open_streams()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if not given:
            line(OVERVIEW)
            flush()
            return 0
        code = _carry_out(parsed(given))
        flush()
        return code
    except BrokenPipeError:
        # Who reads has enough, as in `gradnas recipes | head`.
        close_broken()
        return 141
    except OSError as error:  # as in `gradnas recipes > /dev/full`
        close_broken()
        return _refused(f"what is printed cannot be written: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        line("gradnas: stopped", error=True)  # a run that saves says more itself
        return 130


def parsed(arguments: Sequence[str] | None = None) -> Command:
    """The command that is meant. SystemExit after help, or after saying what is mistyped."""
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone)
    words = sys.argv[1:] if arguments is None else list(arguments)
    command = _named(words)
    # tyro takes a union or an annotated class, which type checkers do not take for a class.
    form: Any = AnyCommand
    settings: dict[str, Any] = {"prog": "gradnas", "config": markers, "args": words}
    if command is None:
        settings["description"] = "Gradient-based neural architecture search."
    else:
        # Of one command alone: of what is mistyped tyro looks at every option of all that it has.
        form = command
        settings |= {"prog": f"gradnas {words[0]}", "args": words[1:]}
    return one_sentence(lambda: tyro.cli(form, **settings), words)


def _named(words: Sequence[str]) -> type[Command] | None:
    """The command that the first word names; None where it is an option, or there is no word.

    SystemExit, with a sentence, where it is neither.
    """
    commands: dict[str, type[Command]] = {}
    for annotated in typing.get_args(AnyCommand):
        command, settings = typing.get_args(annotated)
        commands[settings.name] = command
    if not words or words[0].startswith("-"):
        return None
    if words[0] in commands:
        return commands[words[0]]
    first = shortened(words[0])
    hint = did_you_mean(words[0], commands)
    _refused(f"unknown here: {first}; the commands are {', '.join(commands)}{hint}", 2)
    raise SystemExit(2)


def _carry_out(command: Command) -> int:
    try:
        check_options(command)
    except ValueError as error:
        return _refused(str(error), 2)

    # Here, because torch takes seconds to import, and what is mistyped is told at once.
    import torch

    from gradnas import distributed, runs

    try:
        command.run()
    except BrokenPipeError:
        raise
    except runs.Interrupted:
        return 130
    except distributed.RankLost as error:
        return _refused(str(error), 1)
    except ValueError as error:
        if os.environ.get("GRADNAS_TRACEBACK"):
            raise
        line(told(error), error=True)
        return 2
    except (torch.OutOfMemoryError, MemoryError) as error:
        return _refused(_out_of_memory(error), 1)
    except Exception as error:
        trace = trace_of(error)
        if os.environ.get("GRADNAS_TRACEBACK"):
            raise
        if trace is not None:
            line(trace, error=True)  # of code of the user's own
            return 2
        if isinstance(error, OSError):  # a path that cannot be one, a disk that is full
            what = f"{error.filename}: " if error.filename else ""
            return _refused(f"{what}{error.strerror or error}", 2)
        # torch has a class of its own for what CUDA lacks alone.
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
            return _refused(_out_of_memory(error), 1)
        raise
    finally:
        distributed.stop()
    return 0


def _refused(sentence: str, code: int) -> int:
    line(f"gradnas: {sentence}", error=True)
    return code


def _out_of_memory(error: BaseException) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"out of memory ({reason}); try a smaller --batch-size"
