"""Where cells of ``%%actors`` run: an actor on each node."""

from __future__ import annotations

import ast
import linecache
from typing import Any


class Cell:
    """Where the cells of one node run, one after the other, with variables that stay."""

    def __init__(self) -> None:
        self._variables: dict[str, Any] = {"__name__": "__main__"}
        self._cells = 0

    def run(self, code: str, given: dict[str, Any]) -> Any:
        """Runs a cell; returns the value of its last line, if that is an expression."""
        self._cells += 1
        name = f"<actors cell {self._cells}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        self._variables.update(given)
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), self._variables)  # noqa: S102 - what the magic is for
        if not isinstance(last, ast.Expr):
            return None
        return eval(compile(ast.Expression(last.value), name, "eval"), self._variables)  # noqa: S307 - likewise
