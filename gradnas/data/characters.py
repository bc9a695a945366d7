"""From the bytes of a text file to characters, and from characters to lines."""

from __future__ import annotations

import codecs

# What a file may begin with. UTF-32 first: its little-endian mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decoded(data: bytes, name: str) -> str:
    """The characters of a file: UTF-16 or UTF-32 where its byte order mark says so, else UTF-8.

    The mark is no part of the text; line ends stay as they are.

    Args:
        name: of the file, for errors.

    Raises:
        ValueError: bytes that are no text in that encoding, or characters of number 0, which no
            text has (names the first one, its position counted from 0, and its line).
    """
    mark, encoding = _mark(data)
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        position = len(mark) + error.start
        line = _line(data[len(mark) : position].decode(encoding))
        raise ValueError(
            f"{name} is not {encoding.upper()} text: byte {data[position]:#04x} at position "
            f"{position} (line {line}); {_advice(data, encoding)}"
        ) from error
    if "\0" in text:
        before = text[: text.index("\0")]
        position = len(mark) + len(before.encode(encoding))
        raise ValueError(
            f"{name} is no text in {encoding.upper()}: it holds zero bytes, the first at position "
            f"{position} (line {_line(before)}); {_advice(data, encoding)}"
        )
    return text


def _mark(data: bytes) -> tuple[bytes, str]:
    """The byte order mark that a file begins with, and the encoding that it stands for."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return mark, encoding
    return b"", "utf-8"


def _line(before: str) -> int:
    """The number of the line that follows this text, from 1."""
    return with_plain_ends(before).count("\n") + 1


def _advice(data: bytes, encoding: str) -> str:
    """What helps with bytes that are no text."""
    if encoding != "utf-8":
        return "the file is damaged, or no text"
    start = data[:4096]
    # Latin letters have a zero as every second byte of UTF-16, before or after their own.
    if start[1::2].count(0) > len(start) // 4:
        return "convert it, for example with: iconv -f utf-16le -t utf-8"
    if start[0::2].count(0) > len(start) // 4:
        return "convert it, for example with: iconv -f utf-16be -t utf-8"
    if 0 in data:
        return "the file is damaged, or no text"
    return "convert it, for example with: iconv -f latin1 -t utf-8"


def with_plain_ends(text: str) -> str:
    r"""Text in which every line end is `\n`: `\r\n` and `\r` are line ends, and nothing else is."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines(text: str) -> list[str]:
    r"""The lines of a text without their ends, which are `\n`, `\r\n` or `\r`.

    `str.splitlines` would break at form feeds and at some separators of Unicode too, within what
    the published corpora count as one line.
    """
    found = with_plain_ends(text).split("\n")
    # What follows the last line end is a line only where there is something.
    return found if found[-1] else found[:-1]
