"""One list of pins, one place for addresses and versions, and commands that agree with both."""

import ast
import importlib.metadata as metadata
import re
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

import onepath

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]


def name_of(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def resolved() -> set[str]:
    """All distributions that the package needs here, with all its extras."""
    texts = PROJECT["dependencies"] + sum(PROJECT["optional-dependencies"].values(), [])
    todo, seen = [Requirement(text) for text in texts], set()
    while todo:
        wanted = todo.pop()
        entry = (name_of(wanted.name), frozenset(wanted.extras))
        if entry in seen:
            continue
        seen.add(entry)
        for needed in map(Requirement, metadata.distribution(wanted.name).requires or ()):
            extras = [{"extra": extra} for extra in ("", *wanted.extras)]
            if needed.marker is None or any(needed.marker.evaluate(e) for e in extras):
                todo.append(needed)
    return {name for name, _ in seen}


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text("utf8").splitlines()
    found = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {name_of(name): version for name, version in found}


def test_the_pins_are_the_whole_resolution_and_nothing_else():
    elsewhere = {"wheel"}  # needed on some systems only
    assert set(pins()) - elsewhere == resolved() - elsewhere


def test_torch_comes_first_and_carries_no_local_version():
    first = (ROOT / "requirements.txt").read_text("utf8").splitlines()[0]
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+", first)


def test_the_package_asks_for_what_it_imports_and_for_nothing_else():
    names = {"ot": "pot", "sklearn": "scikit-learn", "PIL": "matplotlib"}  # which needs pillow
    asked = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["data"]
    imports = set()
    for file in (ROOT / "src" / "onepath").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf8"))):
            if isinstance(node, ast.Import):
                imports |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imports.add(node.module.partition(".")[0])
    beside = {"onepath", "ipywidgets"}  # the second is there wherever a notebook can show a slider
    third = imports - set(sys.stdlib_module_names) - beside
    assert {names.get(name, name) for name in third} == {
        name_of(Requirement(t).name) for t in asked
    }


def test_versions_agree():
    assert onepath.__version__ == PROJECT["version"]


def test_addresses_are_written_once():
    """What cannot read pyproject.toml must at least say the same."""
    urls = PROJECT["urls"]
    for name in ("CITATION.cff", "README.md", "_config.yml"):
        text = (ROOT / name).read_text("utf8")
        found = re.findall(
            r"https://(?:github\.com|\w[\w-]*\.github\.io)/[\w./-]*onepath[\w-]*", text
        )
        assert found, name
        for address in found:
            assert address.startswith((urls["Repository"], urls["Documentation"])), (name, address)


def test_mathematics_needs_no_macro_that_a_notebook_lacks():
    sphinx = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["sphinx"]["config"]
    macros = sphinx.get("mathjax3_config", {}).get("tex", {}).get("macros", {})
    assert not macros, "Colab does not know them; write them out."
