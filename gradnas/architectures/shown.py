"""How results show themselves in a notebook.

A notebook asks its last value for `_repr_html_`. What is shown (pictures, tables) is made by rooms
above those that the results lie in, so that the function is looked up by its name when it is asked
for: results carry `Shown`, and know nothing of pictures.
"""

from __future__ import annotations

import pkgutil

# Of what is shown: object -> HTML.
MAKER = "gradnas.programs.notebook:html_of"


class Shown:
    """A result that a notebook shows as a page would."""

    def _repr_html_(self) -> str:
        """A piece of HTML that needs nothing from elsewhere; pictures are part of it."""
        html: str = pkgutil.resolve_name(MAKER)(self)
        return html
