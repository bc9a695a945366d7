"""What is printed: one sentence of a mistyped command, names made visible, closed streams."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from gradnas.cli import main
from gradnas.cli.lines import flush, line, open_streams
from gradnas.cli.usage import sentence_of
from gradnas.config import visible


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["search", "digits", "--epochs", "x"], "--epochs must be a whole number, not 'x'"),
        (["search", "digits", "--lr", "x"], "--lr must be a number, not 'x'"),
        (
            ["search", "digits", "--fit", "foo"],
            "--fit must be one of crop, pad, squeeze, not 'foo'",
        ),
        (
            ["search", "digits", "--fit", "None"],
            "--fit must be one of crop, pad, squeeze, not 'None'",
        ),
        (["search", "digits", "--epochs"], "--epochs needs a value"),
        (["search", "digits", "--epcohs", "3"], "(did you mean --epochs?)"),
        (["serach"], "unknown here: serach; the commands are search, resume"),
        (["latency", "show"], "gradnas latency show needs TABLE.json"),
        (["search", "digits", "--epochs", "9" * 5000], "--epochs must be a whole number, not '999"),
        (
            ["search", "digits", "--epochs", "\x1b[31m"],
            "--epochs must be a whole number, not '\\x1b",
        ),
    ],
)
def test_a_mistyped_command_is_one_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and printed.out == ""
    assert printed.err.startswith("gradnas: ") and printed.err.count("\n") == 1
    assert sentence in printed.err and "\x1b" not in printed.err


def test_what_is_no_box_at_all_still_says_something():
    assert "gradnas --help" in sentence_of("")


def test_what_moves_a_terminal_is_made_visible():
    assert visible("a\x1b[31mb\r\x07\x9b\u202ec\ud800") == r"a\x1b[31mb\r\x07\x9b\u202ec\ud800"
    assert visible("größe \u540d\tx\ny 😀") == "größe \u540d\tx\ny 😀"


def test_a_stream_of_another_encoding_shows_what_it_can(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    open_streams()
    line("größe … \u540d")
    flush()
    assert written.getvalue() == rb"gr\xf6\xdfe \u2026 \u540d" + b"\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_behind_standard_output_is_a_sentence(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["recipes"]) == 1
        monkeypatch.undo()
    assert capsys.readouterr().err == (
        "gradnas: what is printed cannot be written: No space left on device\n"
    )


@pytest.mark.slow
def test_closed_streams_and_broken_pipes_end_quietly(tmp_path):
    def run(shell: str) -> subprocess.CompletedProcess[str]:
        script = shell.replace("GRADNAS", f"{sys.executable} -m gradnas")
        return subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, cwd=os.getcwd(), check=False
        )

    piped = run("GRADNAS search --help | true; echo ${PIPESTATUS[0]}")
    assert piped.stderr == "" and piped.stdout.splitlines()[-1] == "141"
    closed = run("GRADNAS serach 2>&-; echo $?")
    assert (closed.stdout, closed.stderr) == ("2\n", "")
    closed = run("GRADNAS recipes 2>&- >&-; echo $?")
    assert (closed.stdout, closed.stderr) == ("0\n", "")
    # A file that is opened later must not become standard error.
    script = "import os; from gradnas.cli.lines import open_streams; open_streams()"
    script += "; print(os.open('x', os.O_CREAT | os.O_RDWR))"
    opened = subprocess.run(
        ["bash", "-c", f"PYTHONPATH={os.getcwd()} {sys.executable} -c \"{script}\" 2>&- <&-"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert int(opened.stdout) > 2
