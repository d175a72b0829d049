"""For mkdocstrings: roles of reStructuredText in docstrings, such as ``:class:`~a.b.C```, become code in Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":\w+:`~?([^`]+)`")


class DocstringRoles(griffe.Extension):
    """Rewrites the docstring of each object when it is found."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value)
