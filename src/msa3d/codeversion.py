"""Which code made a product: the package version, the git revision, and a hash of the code itself.

A product is out of date when the code that made it has changed, but a changed comment or docstring must not
cost a quarter of an hour. `code_version` therefore hashes the syntax trees, without docstrings, of the modules that
a step names and of all `msa3d` modules that those import, directly or not. The ground floor (`GROUND_FLOOR`) itself
does not count, though what it imports does: it makes paths, messages and checks; what of it reaches a pixel, the
dataset, is hashed as parameters. The package version and the git revision are stamped into headers, no more.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msa3d

#: Modules that do not count for `code_version`.
GROUND_FLOOR = frozenset(
    f"msa3d.{name}"
    for name in (
        "_fitswalk",
        "_model",
        "_msacheck",
        "errors",
        "layout",
        "atomic",
        "codeversion",
        "provenance",
        "records",
        "workers",
        "references",
        "settings",
        "dataset",
        "observation",
        "ratefile",
        "steps.outdated",
    )
) | {"msa3d"}

_PACKAGE_DIR = Path(__file__).parent


@functools.cache
def git_revision() -> str:
    """Short git revision of the source tree, with ``-dirty`` where it differs, or ``unknown``.

    Where the tree is not under git, as in an image built without ``.git``, the environment variable
    ``MSA3D_GIT_REVISION`` tells.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_PACKAGE_DIR), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        # A package installed inside another project's tree must not borrow that project's revision.
        git("ls-files", "--error-unmatch", "__init__.py")
        revision = git("rev-parse", "--short=12", "HEAD")
        return revision + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("MSA3D_GIT_REVISION") or "unknown"


def _module_file(module: str) -> Path | None:
    parts = module.split(".")[1:]
    plain = _PACKAGE_DIR.joinpath(*parts).with_suffix(".py") if parts else _PACKAGE_DIR / "__init__.py"
    if parts and plain.is_file():
        return plain
    package = _PACKAGE_DIR.joinpath(*parts) / "__init__.py"
    return package if package.is_file() else None


def _imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[str]:
    """Names of `msa3d` modules (or of things in them) that a module imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                up = node.level - 1 if is_package else node.level
                base = ".".join([*parts[: len(parts) - up], *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.cache
def _parsed(module: str) -> tuple[str, frozenset[str]]:
    """Hash of a module's code without docstrings, and the msa3d modules it imports."""
    path = _module_file(module)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = frozenset(
        name
        for name in _imports(tree, module, path.name == "__init__.py")
        if (name == "msa3d" or name.startswith("msa3d.")) and _module_file(name)
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imported


def code_version(*modules: str) -> str:
    """Hash of the code that makes a product.

    Parameters
    ----------
    *modules : str
        Dotted names of the modules whose code makes the product, e.g. ``msa3d.steps.process``. What they
        import from msa3d, directly or not, counts as well, save for the ground floor itself. A package counts as a
        whole. Without any, the version of msa3d alone.

    Returns
    -------
    str
        16 hexadecimal digits, or the package version.

    Raises
    ------
    ValueError
        Where there is no such module in msa3d.
    """
    if not modules:
        return msa3d.__version__
    todo, seen = [], set()
    for module in modules:
        path = _module_file(module)
        if path is None:
            raise ValueError(f"msa3d has no module {module!r}")
        todo.append(module)
        if path.name == "__init__.py":
            todo += [f"{module}.{p.stem}" for p in sorted(path.parent.glob("*.py")) if p.stem != "__init__"]
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        todo.extend(_parsed(module)[1])
    text = "\n".join(f"{module} {_parsed(module)[0]}" for module in sorted(seen - (GROUND_FLOOR - set(modules))))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
