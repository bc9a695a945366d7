"""The examples of docs/laws.md give what stands there."""

import doctest
import re
import warnings
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "laws.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(), flags=re.M)


@pytest.mark.slow
def test_the_examples_of_the_page_are_right():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert len(blocks) >= len(SECTIONS)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, PAGE.name, str(PAGE), 0)
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doctest.DocTestRunner(optionflags=options).run(test, out=said.append)
    assert not said, "".join(said)
