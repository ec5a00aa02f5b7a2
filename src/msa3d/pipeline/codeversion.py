"""Which code made a product: the package version, the git revision, and a hash of the code itself.

A product is out of date when the code that made it has changed, but a changed comment or docstring must not
cost a quarter of an hour. `code_version` therefore hashes the syntax trees, without docstrings, of the modules that
a step names, of all modules of `msa3d` and `msa3d_sim` that those import, directly or not, and the data files of the
package that any of them names. `DECIDES_NOTHING` are modules that do not count, nor what they import: settings, whose
values are hashed as parameters, and what makes paths, messages, progress and checks. Imports for type checking alone do
not count either. The package version and the git revision are stamped into headers, no more.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msa3d

#: Modules that decide no product. Settings modules and `pipeline.steps` choose what runs and with which values, which
#: the records hold; so do `observation.exposures` and `archive.crds` (context).
DECIDES_NOTHING = frozenset(
    f"msa3d.{name}"
    for name in (
        "_model",
        "archive.crds",
        "config",
        "cubes.settings",
        "errors",
        "galaxy.settings",
        "observation.exposures",
        "observation.metafile_check",
        "observation.pattern",
        "observation.reading",
        "pipeline.codeversion",
        "pipeline.engine",
        "pipeline.layout",
        "pipeline.parallel",
        "pipeline.products",
        "pipeline.steps",
        "published.settings",
        "reduce.settings",
    )
) | {"msa3d"}

PACKAGES = ("msa3d.", "msa3d_sim.")
"""Packages of the repository, the simulator being one of its own."""

_PACKAGE_DIR = Path(__file__).parents[1]


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
    name, *parts = module.split(".")
    top = _PACKAGE_DIR.with_name(name)
    plain = top.joinpath(*parts).with_suffix(".py") if parts else top / "__init__.py"
    if parts and plain.is_file():
        return plain
    package = top.joinpath(*parts) / "__init__.py"
    return package if package.is_file() else None


def _imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[str]:
    """Names of `msa3d` modules (or of things in them) that a module imports anywhere, but for type checking alone."""
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                up = node.level - 1 if is_package else node.level
                base = ".".join([*parts[: len(parts) - up], *([base] if base else [])])
            yield from (_source(base, alias.name) for alias in node.names)


def _source(base: str, name: str) -> str:
    """Module that ``from base import name`` takes a name from: behind the face of a package, the one that has it."""
    if _module_file(f"{base}.{name}"):
        return f"{base}.{name}"
    path = _module_file(base) if base.startswith(PACKAGES) else None
    return _face(base, path).get(name, base) if path and path.name == "__init__.py" else base


@functools.cache
def _face(package: str, path: Path) -> dict[str, str]:
    """Names that the ``__init__`` of a package imports from its own modules."""
    nodes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name: node.module
        for node in nodes
        if node.module and node.module.startswith(f"{package}.")
        for alias in node.names
    }


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below one, at any depth, without the blocks ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr) or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            continue
        yield child
        yield from _executed(child)


def _data(text: str, folder: Path) -> set[Path]:
    """Files of the package, beside a module or in its ``data``, that the module names."""
    names = set(re.findall(r"""["']([\w./-]+\.(?!py["'])[a-z0-9]+)["']""", text))
    return {path for name in names for path in (folder / name, folder / "data" / name) if path.is_file()}


@functools.cache
def _parsed(module: str) -> tuple[str, frozenset[str]]:
    """Hash of a module's code without docstrings and of its data files, and the msa3d modules it imports."""
    path = _module_file(module)
    assert path is not None  # `code_version` and `msa3d_imports` look first
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    imported = msa3d_imports(tree, module, path.name == "__init__.py")
    for node in (tree, *_executed(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    text = hashlib.sha256(ast.dump(tree).encode())
    for data in sorted(_data(source, path.parent)):
        text.update(data.read_bytes())
    return text.hexdigest(), imported


def msa3d_imports(tree: ast.Module, module: str = "", is_package: bool = False) -> frozenset[str]:
    """Modules of msa3d that some code imports and that decide what it makes.

    Parameters
    ----------
    tree : `ast.Module`
        The code, of a module or of the cells of a notebook.
    module : str
        Its dotted name, for relative imports.
    is_package : bool
        Whether it is the ``__init__`` of a package.

    Returns
    -------
    frozenset of str
        Dotted names, without `DECIDES_NOTHING`.
    """
    names = {name for name in _imports(tree, module, is_package) if name.startswith(PACKAGES)} - DECIDES_NOTHING
    return frozenset(name for name in names if _module_file(name))


def behind_run(tree: ast.Module) -> tuple[frozenset[str], str]:
    """What stands behind the methods of a `msa3d.runs.Run`, called ``run``, that the cells of a notebook use.

    Parameters
    ----------
    tree : `ast.Module`
        The code of the cells.

    Returns
    -------
    modules : frozenset of str
        Those that the methods import, and those of the figures that they draw.
    text : str
        SHA-256 of the code of the methods (64 hexadecimal digits).
    """
    path = _module_file("msa3d.runs")
    assert path is not None
    source = ast.parse(path.read_text(encoding="utf-8"))
    (run,) = (node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "Run")
    methods = {node.name: node for node in run.body if isinstance(node, ast.FunctionDef)}
    tables = {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }
    modules, seen = set[str](), dict[str, str]()
    todo: list[tuple[ast.AST, str]] = [(tree, "run")]
    while todo:
        code, owner = todo.pop()
        calls = {node.attr for node in ast.walk(code) if isinstance(node, ast.Attribute) and _is(node.value, owner)}
        drawn = [node for node in ast.walk(code) if isinstance(node, ast.Call) and _is(node.func, f"{owner}.figure")]
        for name in (ast.literal_eval(call.args[0]) for call in drawn):
            module = tables["FIGURES"][name]
            modules.add(module)
            takes = _arguments(module, f"plot_{name}")
            calls |= {method for argument, method in tables["GIVES"].items() if argument in takes}
        for name in calls & methods.keys() - seen.keys():
            seen[name] = ast.dump(methods[name])
            modules |= msa3d_imports(ast.Module([methods[name]], []), "msa3d.runs")
            # What a figure needs is known from its arguments.
            todo += [(methods[name], "self")] if name != "figure" else []
    text = "\n".join(seen[name] for name in sorted(seen))
    return frozenset(modules), hashlib.sha256(text.encode()).hexdigest()


def _is(node: ast.AST, text: str) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) == text


def _arguments(module: str, function: str) -> set[str]:
    """Names of the arguments of a function of a module."""
    path = _module_file(module)
    assert path is not None
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    (found,) = (node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == function)
    return {argument.arg for argument in (*found.args.args, *found.args.kwonlyargs)}


def code_version(*modules: str) -> str:
    """Hash of the code that makes a product.

    Parameters
    ----------
    *modules : str
        Dotted names of the modules whose code makes the product, e.g. ``msa3d.reduce.exposure``. What they
        import from msa3d, directly or not, counts as well, save for `DECIDES_NOTHING`. A name with a minus before
        it, ``-msa3d.reduce.cosmics``, is a part that is switched off: it does not count, nor what it alone imports.
        Without any, the version of msa3d alone.

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
    for module in modules:
        if _module_file(module.removeprefix("-")) is None:
            raise ValueError(f"msa3d has no module {module.removeprefix('-')!r}")
    todo = [module for module in modules if not module.startswith("-")]
    seen = {module[1:] for module in modules if module.startswith("-")}
    off = frozenset(seen)
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo.extend(_parsed(module)[1])
    text = "\n".join(f"{module} {_parsed(module)[0]}" for module in sorted(seen - off))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
