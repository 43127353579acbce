"""What the build demands of equations, of their checks and of the functions that implement them."""

import ast
import math
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

MARGINS = {
    "identity": 10.0,
    "law": 1.5,
    "order": 2.0,
    "bound": 1.1,
}  # a mistake exceeds margin * bound
MISTAKES = ("factor", "sign", "clock", "missing term", "wrong object", "hypothesis")
CLAIMS = tuple(f"C{k}" for k in range(1, 13))  # the claims of the survey, listed in chapter 0
INSIDE = {"proof_node", "exercise_node", "exercise_enumerable_node", "solution_node"}
LABEL = r"(?:eq|thm|fig|ex|ch):[\w-]+"
TYPED = re.compile(r"(?:Chapter\s+\d|\d+\s*[·.:])")  # a number at the head of a title


def in_proof(node) -> bool:
    """Whether the node lies in a proof, an exercise or a solution."""
    return any(type(parent).__name__ in INSIDE for parent in ancestors(node))


def cites(node) -> bool:
    """Whether the section around the node, without its subsections, cites a source."""
    section = next(p for p in ancestors(node) if _is_section(p) or isinstance(p, nodes.document))
    return any(
        xref.get("refdomain") == "cite"
        and next(filter(_is_section, ancestors(xref)), section) is section
        for xref in section.findall(addnodes.pending_xref)
    )


def ancestors(node):
    while (node := node.parent) is not None:
        yield node


def _is_section(node) -> bool:
    """A section of the text: theorem boxes hold their content in a section node of their own."""
    return isinstance(node, nodes.section) and isinstance(
        node.parent, (nodes.section, nodes.document)
    )


def functions(package: Path) -> dict[str, list[tuple[str, Path, int]]]:
    """Who implements what, from `Book: eq:label` in docstrings: label -> (name, file, line)."""
    found: dict[str, list[tuple[str, Path, int]]] = {}
    for file in sorted(package.glob("*.py")):
        module = package.name if file.stem == "__init__" else f"{package.name}.{file.stem}"
        for name, node in _definitions(ast.parse(file.read_text("utf8")), module):
            text = ast.get_docstring(node) or ""
            for label in re.findall(LABEL, " ".join(re.findall(r"\bBook:(.*)\Z", text, re.S))):
                found.setdefault(label, []).append((name, file, getattr(node, "lineno", 1)))
    return found


def _definitions(node, name):
    yield name, node
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
            yield from _definitions(child, f"{name}.{child.name}")


def problems(env, pages, implemented, folder: Path):
    """Every broken rule, as (place, message)."""
    theorems = {label: entry["docname"] for label, entry in getattr(env, "proof_list", {}).items()}
    owners = {e.label: doc for doc, page in pages.items() for e in page.equations}
    known = {**theorems, **owners}
    for docname, page in pages.items():
        yield from _displays(docname, page, known)
        yield from _checks(docname, page, known)
        for claim, labels in page.claims.items():
            if claim not in CLAIMS:
                yield (
                    (docname, None),
                    f"unknown claim {claim!r} in the front matter: the survey makes C1 to C12.",
                )
            for label in labels:
                if label not in known:
                    yield (docname, None), f"claim {claim} names {label!r}, which no page states."
    named = env.get_domain("std").labels.keys() | known.keys()
    named |= getattr(env, "sphinx_exercise_registry", {}).keys()
    for label, places in implemented.items():
        if label not in named:
            for name, file, line in places:
                yield (
                    f"{file}:{line}",
                    f"the docstring of {name} says Book: {label}, which no page states.",
                )
    yield from _chapters(env, folder)


def _displays(docname, page, known):
    """Each display is a checked claim, or says what else it is."""
    held = {r.get("label") for r in page.records if r.get("verdict") == "held"}
    for line in page.stray:
        yield (
            (docname, line),
            "a displayed equation without label outside proofs and exercises: "
            "label it and check it, or give its {math} the class step.",
        )
    for e in page.equations:
        where = (docname, e.line)
        if not re.fullmatch(r"eq:[\w-]+", e.label):
            yield (
                where,
                f"the label {e.label!r} of an equation should read eq:name; an amsmath environment "
                r"cannot carry one: write $$\begin{aligned}…\end{aligned}$$ (eq:name).",
            )
        elif e.mark == "quoted" and not e.cited:
            yield where, f"{e.label} is quoted, but its section cites no source."
        elif e.mark is None and e.label not in held:
            yield (
                where,
                f"{e.label} is neither checked on this page nor marked: "
                "expect(…) and refute(…) it, or give its {math} the class definition or quoted.",
            )


def _checks(docname, page, known):
    """Each check has a planted mistake that it catches clearly, and each mistake its check."""
    sides: dict[tuple, set] = {}
    for r in page.records:
        label, where = r.get("label"), (docname, r.get("line"))
        if message := _malformed(r):
            yield where, f"check of {label}: {message}"
            continue
        if label not in known:
            yield where, f"a check names {label!r}, which no page states."
        sides.setdefault((label, r["kind"], r["bound"]), set()).add(r["verdict"])
    for (label, kind, bound), verdicts in sides.items():
        if verdicts == {"held"}:
            yield (
                (docname, None),
                f"the check of {label} ({kind}, bound {bound:g}) was never shown to fail: "
                "refute the same check on a named mistake.",
            )
        if verdicts == {"refuted"}:
            yield (
                (docname, None),
                f"a mistake in {label} ({kind}, bound {bound:g}) is refuted, but no check of that "
                "label, kind and bound holds: expect it first.",
            )


def _malformed(r) -> str | None:
    """Why a record is no evidence, or None."""
    if r.get("kind") not in MARGINS:
        return f"kind must be one of {', '.join(MARGINS)}, got {r.get('kind')!r}."
    error, bound, mistake = r.get("error"), r.get("bound"), r.get("mistake")
    if (
        not all(isinstance(v, (int, float)) and math.isfinite(v) for v in (error, bound))
        or bound <= 0
    ):
        return f"error and bound must be finite numbers, got {error!r} and {bound!r}."
    if r.get("verdict") == "held":
        if error > bound:
            return f"held, though the error {error:.3g} exceeds the bound {bound:.3g}."
        return None if mistake is None else "held, and yet it names a mistake."
    if r.get("verdict") != "refuted":
        return f"the verdict must be held or refuted, got {r.get('verdict')!r}."
    if error < (needed := MARGINS[r["kind"]] * bound):
        return f"the mistake reaches {error:.3g} only; to be caught it must reach {needed:.3g}."
    kind, _, words = (mistake or "").partition(":")
    if kind not in MISTAKES or not words.strip():
        return f"a refutation names its mistake, “{'|'.join(MISTAKES)}: words”, got {mistake!r}."
    return None


def _chapters(env, folder: Path):
    """Each `NN-name.md` is an executable chapter and has its place in the table of contents."""
    seen: dict[str, str] = {}
    for file in sorted(folder.glob("book/[0-9][0-9]-*.md")):
        docname = file.relative_to(folder).with_suffix("").as_posix()
        if (first := seen.setdefault(file.name[:2], file.name)) != file.name:
            yield str(file), f"{first} has the same number."
        if docname not in env.found_docs:
            yield str(file), "this chapter is missing from _toc.yml."
        elif "kernelspec" not in env.metadata.get(docname, {}):
            yield (
                (docname, None),
                "a chapter without kernelspec in its front matter is not executed.",
            )
        elif TYPED.match(title := env.titles[docname].astext()):
            yield (docname, None), f"the title {title!r} carries a typed number; the file's counts."
