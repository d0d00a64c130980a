"""Nothing in the code keeps it from macOS, Windows or a Python from 3.11 to 3.13: what the source and an import can show."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
SOURCES = sorted((TOP / "src" / "picolm").rglob("*.py"))
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_ATTRIBUTES = {
    "os": {"fork", "forkpty", "geteuid", "getgid", "getuid", "killpg", "mkfifo", "nice", "pread", "statvfs", "uname", "wait"},
    "signal": {"SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pause", "setitimer"},
}
LINKS = {"symlink", "symlink_to", "link", "hardlink_to"}
GUARDED = {"sched_getaffinity"}
"""Names of `os` that only some systems have, and that may stand behind `hasattr`."""
PYTHONS = ("3.11", "3.12", "3.13")
WITHOUT_POSIX = """
import builtins, importlib, os, pkgutil, signal, sys
import torch, lightning_fabric, pandas, pyarrow, altair, huggingface_hub, typer.testing, tokenizers, safetensors.torch
import scipy.stats, statsmodels.api, vl_convert, transformers
for name in "fork getuid geteuid sched_getaffinity symlink statvfs".split():
    delattr(os, name)
for name in "SIGUSR1 SIGUSR2 SIGHUP SIGALRM SIGKILL".split():
    delattr(signal, name)
ordinary = builtins.__import__
def strict(name, globals=None, *rest, **more):
    if name in {BLOCKED} and (globals or {}).get("__name__", "").startswith("picolm"):
        raise ImportError(f"there is no {name} here")
    return ordinary(name, globals, *rest, **more)
builtins.__import__ = strict
import picolm
names = [module.name for module in pkgutil.walk_packages(picolm.__path__, "picolm.") if not module.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in SOURCES:
        yield path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 11))


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that is executed when the module is imported, but not what stands under a condition."""
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.If):
            yield child
            yield from at_import(child)


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {(node.module or "").split(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def test_no_module_of_one_system_is_imported_unconditionally():
    found = [(path.name, node.lineno) for path, tree in trees() for node in at_import(tree) if imported(node) & POSIX_MODULES]
    assert found == []


def test_no_name_of_one_system_is_used_directly():
    found = [
        (path.name, node.lineno, node.attr)
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.attr in POSIX_ATTRIBUTES.get(node.value.id, set())
    ]
    assert found == []


def test_names_that_only_some_systems_have_stand_behind_a_question():
    for path, tree in trees():
        text = path.read_text(encoding="utf-8")
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & GUARDED
        assert all(f'hasattr(os, "{name}")' in text for name in used), path


def test_no_link_is_made():
    found = [
        (path.name, node.lineno)
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LINKS
    ]
    assert found == []


def test_no_process_is_forked_by_a_pool():
    found = [path.name for path in SOURCES if '"fork"' in path.read_text(encoding="utf-8")]
    assert found == []


def test_text_is_read_and_written_as_utf_8():
    """The encoding of a system that is not asked for would be another one on Windows."""
    found = [
        (path.name, node.lineno)
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("read_text", "write_text")
        and not is_durable(node.func)
        and "encoding" not in {keyword.arg for keyword in node.keywords}
    ]
    assert found == []


def is_durable(function: ast.Attribute) -> bool:
    """`durable.write_text` writes UTF-8 by itself."""
    return isinstance(function.value, ast.Name) and function.value.id == "durable"


def test_every_module_is_imported_where_posix_is_missing():
    blocked = repr(POSIX_MODULES)
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX.replace("{BLOCKED}", blocked)], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout.splitlines()[-1]) > 200


def test_the_metadata_and_the_syntax_are_those_of_the_pythons_we_name():
    facts = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert facts["requires-python"] == f">={PYTHONS[0]}"
    named = [line.rsplit(" ", 1)[-1] for line in facts["classifiers"] if line.startswith("Programming Language :: Python :: 3.")]
    assert tuple(named) == PYTHONS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in SOURCES:
            compile(path.read_text(encoding="utf-8"), str(path), "exec")


@pytest.mark.parametrize("name", ["distutils", "imp", "asynchat", "cgi", "crypt", "telnetlib", "pipes", "imghdr"])
def test_nothing_is_used_that_later_pythons_have_removed(name: str):
    assert [path.name for path, tree in trees() for node in ast.walk(tree) if name in imported(node)] == []
