"""Comments behind the fields of a class, as their docstrings on the pages of the API."""

import ast
import functools
import io
import tokenize
from pathlib import Path
from typing import Any

import griffe


class Comments(griffe.Extension):
    """Gives fields and constants that have no docstring the comment at the end of their line."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        """A field is a name in a class or a module, not an attribute of `self`."""
        if attr.docstring or not isinstance(node, ast.AnnAssign | ast.Assign):
            return
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if isinstance(targets[0], ast.Name) and isinstance(attr.filepath, Path):
            text = comments(attr.filepath).get(node.end_lineno or node.lineno)
            if text:
                attr.docstring = griffe.Docstring(text, parent=attr, lineno=node.lineno)


@functools.cache
def comments(path: Path) -> dict[int, str]:
    """The comments behind the code of a file by their lines, each with those right below it."""
    found: dict[int, str] = {}
    row = column = -1  # of the comment that the next line may go on with
    source = io.StringIO(path.read_text(encoding="utf-8"))
    for token in tokenize.generate_tokens(source.readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ")
            if token.start[1] == column:
                found[row] += f" {text}"
            elif not token.line.lstrip().startswith("#"):
                row, column = token.start
                found[row] = text
        elif token.type not in (tokenize.NL, tokenize.NEWLINE):
            column = -1
    return found
