"""What the ledger knows of each page: labelled equations and records of checks; and its rows."""

from dataclasses import dataclass, field

from numbering import chapter_number


@dataclass
class Equation:
    """A labelled display: its mark, its line, and whether its section cites anything."""

    label: str
    mark: str | None
    line: int | None
    cited: bool


@dataclass
class Page:
    """What one page contributes to the ledger."""

    records: list[dict] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    stray: list[int | None] = field(
        default_factory=list
    )  # lines of displays that need a label or a class
    claims: dict[str, list[str]] = field(default_factory=dict)


def pages(env) -> dict[str, Page]:
    """The pages read so far, by docname; kept with the build environment."""
    if not hasattr(env, "ledger"):
        env.ledger = {}
    return env.ledger


def rows(env) -> list[dict]:
    """One row a record, and one for each equation without record, in the order of the book."""
    result = []
    for docname, page in sorted(pages(env).items(), key=lambda item: reading_order(item[0])):
        claims: dict[str, list[str]] = {}
        for claim, labels in page.claims.items():
            for label in labels:
                claims.setdefault(label, []).append(claim)
        marks = {e.label: e.mark for e in page.equations}
        order = list(dict.fromkeys([*marks, *(str(r.get("label")) for r in page.records)]))
        entries = [r for r in page.records if r.get("label") in order]
        checked = {r["label"] for r in entries}
        entries += [
            {"label": e, "verdict": marks[e] or "unchecked"} for e in marks if e not in checked
        ]
        for entry in sorted(entries, key=lambda e: order.index(e["label"])):
            names = env.ledger_functions.get(entry["label"], [])
            result.append(
                {
                    "label": entry["label"],
                    "kind": entry.get("kind"),
                    "verdict": entry.get("verdict"),
                    "error": entry.get("error"),
                    "bound": entry.get("bound"),
                    "mistake": entry.get("mistake"),
                    "function": ", ".join(name for name, _, _ in names) or None,
                    "claim": ", ".join(claims.get(entry["label"], ())) or None,
                    "chapter": chapter_number(docname),
                }
            )
    return result


def reading_order(docname: str) -> tuple:
    number = chapter_number(docname)
    return (number is None, number, docname)
