"""The page of the package index: README.md without what only a checkout can show.

`hatchling` calls this when it builds the package (see `[tool.hatch.metadata.hooks.custom]` in
pyproject.toml). On the index there are no files beside the page: pictures of the repository are
left out, and links into it become their text, which names the file.
"""

from __future__ import annotations

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE = r"\((?!https?://)[^)\s]+\)"
PICTURE = re.compile(rf"!\[[^\]]*\]{RELATIVE}\n*")
LINK = re.compile(rf"\[([^\]]*)\]{RELATIVE}")


def index_page(readme: str) -> str:
    """The text of README.md for the package index."""
    return LINK.sub(r"\1", PICTURE.sub("", readme))


class IndexPage(MetadataHookInterface):
    """Gives the package its description."""

    def update(self, metadata: dict) -> None:
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": index_page(readme)}
