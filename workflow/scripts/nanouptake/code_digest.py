"""A digest of the code that a script runs: its own and that of every package module it imports."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path


@cache
def _parsed(path: Path, package: Path) -> tuple[str, frozenset[Path]]:
    """Digest of one file without comments and layout, and the package modules it imports."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            inside = node.level == 1 or (node.module or "").split(".")[0] == package.name
            if not inside:
                continue
            module = (node.module or "") if node.level else (node.module or "").partition(".")[2]
            names |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                head, _, rest = alias.name.partition(".")
                if head == package.name and rest:
                    names.add(rest.split(".")[0])
    modules = {package / f"{name}.py" for name in names} | {package / "__init__.py"}
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return digest, frozenset(m for m in modules if m.exists() and m != path)


def code_digest(script: Path, *, package: Path) -> str:
    """Return a digest that changes when the script or a module behind it changes, comments aside."""
    seen: dict[Path, str] = {}
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen[path], imported = _parsed(path, package)
        waiting += imported
    lines = sorted(f"{path.name} {digest}" for path, digest in seen.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
