"""The repository's own promises: one address, one version, one list of modules and dependencies."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import onepath

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))


def test_the_version_is_the_same_everywhere():
    assert PROJECT["version"] == onepath.__version__ == CITATION["version"]
    assert f"## {onepath.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf8")


def test_the_address_is_the_same_everywhere():
    urls = PROJECT["urls"]
    assert CITATION["repository-code"] == urls["Repository"]
    assert CITATION["url"] == urls["Documentation"]
    readme = (ROOT / "README.md").read_text("utf8")
    assert urls["Repository"] in readme and urls["Documentation"] in readme


@pytest.mark.parametrize("group", ["runtime", *PROJECT["optional-dependencies"]])
def test_every_dependency_is_argued(group):
    argued = (ROOT / "CONTRIBUTING.md").read_text("utf8").lower()
    names = PROJECT["optional-dependencies"].get(group, PROJECT["dependencies"])
    bare = [re.split(r"[<>=\[ ]", name)[0].lower() for name in names]
    assert not [name for name in bare if name not in argued]


def test_every_pin_is_exact_and_torch_comes_first():
    lines = (ROOT / "requirements.txt").read_text("utf8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins[0] == "torch==2.13.0"
    assert all(re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+", pin) for pin in pins)
    assert not [
        pin for pin in pins if pin.startswith(("torchvision", "flow_matching", "flow-matching"))
    ]


# Rows 11 and 19 of the errata say which works are meant; from the publishers' pages, not ours.
MEANT = {
    "todorov2006": ("Todorov, Emanuel", "Linearly-solvable Markov decision problems", "2006"),
    "todorov2009": ("Todorov, Emanuel", "Efficient computation of optimal actions", "2009"),
    "chen2022": (
        "Chen, Tianrong and Liu, Guan-Horng and Theodorou, Evangelos A.",
        "Likelihood Training of Schrodinger Bridge using Forward-Backward SDEs Theory",
        "2022",
    ),
    "shi2023": (
        "Shi, Yuyang and De Bortoli, Valentin and Campbell, Andrew and Doucet, Arnaud",
        "Diffusion Schrodinger Bridge Matching",
        "2023",
    ),
}


def bibliography_entry(key):
    text = (ROOT / "book" / "references.bib").read_text("utf8")
    (entry,) = re.findall(rf"^@\w+\{{{key},\n(.*?)^\}}", text, re.M | re.S)
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.M))
    return tuple(re.sub(r'[{}]|\\"', "", fields[name]) for name in ("author", "title", "year"))


def test_slips_of_citations_are_corrected_by_entries_that_are_right():
    errata = (ROOT / "book" / "errata.md").read_text("utf8")
    rows = [line for line in errata.splitlines() if re.match(r"\| (11|19) \|", line)]
    row11, row19 = rows
    assert re.findall(r"\{cite:t\}`(\w+)`", row11) == ["shi2023"]
    assert row19.count("{cite:t}") == 3
    for words in (
        "decision problems are {cite:t}`todorov2006`",
        "{cite:t}`todorov2009` is the paper on the efficient computation",
        "{cite:t}`chen2022` is most likely meant",
    ):
        assert words in row19
    assert {key: bibliography_entry(key) for key in MEANT} == MEANT
