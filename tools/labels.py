"""Numbers, names and addresses of everything that a chapter refers to, as the site has them.

They are read from the environment that the builder of the site leaves behind, so a notebook cannot
show a number or a link that the page does not.
"""

import pickle
import sys
from dataclasses import dataclass, field
from pathlib import Path

from docutils.nodes import make_id

from chapters import ROOT, BookError


@dataclass(frozen=True)
class Target:
    """Where a reference leads: page and anchor, the kind and number of what is there, its title."""

    docname: str
    anchor: str
    kind: str
    number: str = ""
    title: str = ""

    def address(self, site: str) -> str:
        return f"{site}/{self.docname}.html" + (f"#{self.anchor}" if self.anchor else "")

    @property
    def name(self) -> str:
        """ "Theorem 6.1", "Figure 6.2", "(6.3)", "Chapter 6"; the title of what has no number."""
        if self.kind == "equation":
            return f"({self.number})"
        if self.kind == "section":
            kind = "Section" if "." in self.number else "Chapter"
            return f"{kind} {self.number}" if self.number else self.title
        return f"{self.kind.capitalize()} {self.number}".strip()


@dataclass(frozen=True)
class Labels:
    """Targets by label, titles and section numbers of pages, citations, files of pictures."""

    targets: dict[str, Target]
    titles: dict[str, str]
    sections: dict[str, list[str]]
    citations: dict[str, tuple[str, str, Target]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)


def site_labels(root: Path = ROOT) -> Labels:
    """Read the environment of the last successful build of the site."""
    file = root / "_build" / ".doctrees" / "environment.pickle"
    if not file.exists() or not (root / "_build" / "site.json").exists():
        raise BookError(
            "numbers and links of the notebooks come from the site, and there is no successful "
            "build of it; run: make book"
        )
    extensions = str(root / "book" / "_ext")
    sys.path.insert(0, extensions)
    try:
        with file.open("rb") as stream:
            env = pickle.load(stream)
    finally:
        sys.path.remove(extensions)
    return from_environment(env)


def from_environment(env) -> Labels:
    """Collect labels from a Sphinx environment."""
    targets = {}
    standard = env.domaindata["std"]
    for label, (docname, anchor) in standard["anonlabels"].items():
        targets[label] = _standard(env, docname, anchor, "")
    for label, (docname, anchor, title) in standard["labels"].items():
        targets[label] = _standard(env, docname, anchor, str(title))
    for label, entry in getattr(env, "sphinx_exercise_registry", {}).items():
        number = _number(env, entry["docname"], "exercise", label)
        targets[label] = Target(entry["docname"], label, entry["type"], number)
    for label, entry in getattr(env, "proof_list", {}).items():
        docname, anchor = entry["docname"], entry["ids"][0]
        number = _number(env, docname, entry["countertype"], anchor)
        targets[label] = Target(docname, anchor, entry["realtype"], number)
    for label, (docname, _) in env.domaindata["math"]["objects"].items():
        anchor = make_id(f"equation-{label}")
        number = _number(env, docname, "displaymath", anchor)
        targets[label] = Target(docname, anchor, "equation", number)
    return Labels(
        targets,
        {docname: title.astext() for docname, title in env.titles.items()},
        {
            docname: [_dotted(number) for number in numbers.values()]
            for docname, numbers in env.toc_secnumbers.items()
        },
        _citations(env),
        {path: name for path, (_, name) in env.images.items()},
    )


def _standard(env, docname: str, anchor: str, title: str) -> Target:
    for kind in ("figure", "table"):
        if number := _number(env, docname, kind, anchor):
            return Target(docname, anchor, kind, number, title)
    numbers = env.toc_secnumbers.get(docname, {})
    number = numbers.get(f"#{anchor}")
    if number is None and _is_title(env, docname, title):
        number = numbers.get("")
    return Target(docname, anchor, "section", _dotted(number or ()), title)


def _is_title(env, docname: str, title: str) -> bool:
    return docname in env.titles and env.titles[docname].astext() == title


def _number(env, docname: str, kind: str, anchor: str) -> str:
    return _dotted(env.toc_fignumbers.get(docname, {}).get(kind, {}).get(anchor, ()))


def _dotted(number) -> str:
    return ".".join(str(part) for part in number)


def _citations(env) -> dict[str, tuple[str, str, Target]]:
    """Authors, year and place of each entry of the bibliography."""
    data = env.domaindata.get("cite", {})
    found = {}
    for citation in data.get("citations", ()):
        entry = citation.entry
        people = entry.persons.get("author") or entry.persons.get("editor") or []
        names = [" ".join(map(str, person.rich_last_names)) for person in people]
        authors = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
        target = Target(citation.bibliography_key.docname, citation.citation_id, "citation")
        found[citation.key] = (
            authors or str(entry.rich_fields.get("title", citation.key)),
            entry.fields.get("year", "n.d."),
            target,
        )
    return found
