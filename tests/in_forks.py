"""Work in forks of the test's process: as several ranks, or to be killed, without new imports.

A process of its own imports torch, and at its first step `torch._dynamo`, for seven seconds.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import time
import traceback

import torch._dynamo  # noqa: F401, here, once, before there are forks
from faults import ended

from gradnas.cli import main

MOST_SECONDS = 600.0  # after which a fork hangs, on however busy a machine


def forked(work, **environment):
    """The process id of a fork that carries out `work()` and ends with its exit code, if any."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(environment)
        code = work() or 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)  # gloo's threads may still run when the interpreter takes itself apart


def code_of(child):
    """The exit code of a fork, when it has ended."""
    return ended(child, time.monotonic() + MOST_SECONDS)


def rank_environments(world=2):
    """What torchrun tells each of several ranks on one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def as_ranks(work, *arguments):
    """Carry out `work(*arguments)` as each of two ranks; what they say is that of the test."""
    work = functools.partial(work, *arguments)
    children = [forked(work, **environment) for environment in rank_environments()]
    codes = [code_of(child) for child in children]
    assert codes == [0, 0], codes


def gradnas_as_ranks(*words):
    """A command of gradnas as two ranks."""
    as_ranks(main, [str(word) for word in words])
