"""For mkdocstrings: in docstrings, roles such as ``:class:`~a.b.C``` become code, and examples become blocks of it."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":\w+:`~?([^`]+)`")
EXAMPLE = re.compile(r"(?:^>>>.*\n?(?:^(?!\s*$).*\n?)*)", re.M)  # until an empty line


class DocstringRoles(griffe.Extension):
    """Rewrites the docstring of each object when it is found."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = EXAMPLE.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", obj.docstring.value)
            obj.docstring.value = ROLE.sub(r"`\1`", text)
