"""The table of contents is the import graph, and the rules of the house hold in every module."""

import ast
from pathlib import Path

import pytest

import onepath

SRC = Path(onepath.__file__).parent
MODULES = {p.stem: p.read_text() for p in sorted(SRC.glob("*.py")) if p.stem != "__init__"}


def imports(source: str) -> tuple[set[str], set[str]]:
    """Modules of the package, and the others, that a source imports anywhere."""
    own, others = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            named = {node.module} if node.module else {a.name for a in node.names}
            own |= named - {"__version__", "device"}
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Import):
            others |= {a.name.partition(".")[0] for a in node.names}
    return own, others


def test_every_module_has_a_place():
    assert set(MODULES) == set(onepath.READING_ORDER)


@pytest.mark.parametrize("module", onepath.READING_ORDER)
def test_modules_import_only_what_was_read_before(module):
    own, others = imports(MODULES[module])
    ahead = own - set(onepath.READING_ORDER[: onepath.READING_ORDER.index(module)])
    assert not ahead, f"{module} uses {ahead}, which the reader has not met yet."
    assert "onepath" not in others, f"{module} imports the package by its name; write `from .`."


def test_a_module_that_looks_ahead_is_noticed():
    own, others = imports("from .solvers import euler\nimport onepath.training\nfrom . import data")
    assert own == {"solvers", "data"} and others == {"onepath"}


@pytest.mark.parametrize("module", onepath.READING_ORDER)
def test_only_plotting_draws(module):
    assert module.startswith("plotting") or "matplotlib" not in imports(MODULES[module])[1]


@pytest.mark.parametrize("module", onepath.READING_ORDER)
def test_nothing_in_the_package_seeds_or_changes_defaults(module):
    called = {n.attr for n in ast.walk(ast.parse(MODULES[module])) if isinstance(n, ast.Attribute)}
    assert not called & {"set_default_dtype", "set_default_device", "seed_all"}
    assert "torch.manual_seed" not in MODULES[module]


@pytest.mark.parametrize("module", onepath.READING_ORDER)
def test_a_module_opens_with_its_theory_and_fits_in_the_head(module):
    assert ast.get_docstring(ast.parse(MODULES[module]))
    assert len(MODULES[module].splitlines()) <= 300
