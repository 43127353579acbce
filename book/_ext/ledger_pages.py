"""How checks are shown: a line under a cell, a badge by an equation, a table on the ledger page."""

import math
from collections import Counter

from docutils import nodes
from ledger_data import pages, rows
from numbering import chapter_number
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

AMOUNT = {
    "identity": "largest error",
    "law": "standard errors",
    "order": "off the claimed order by",
}
MARK = {"held": "✓", "refuted": "✗"}
HEAD = ("Equation", "Chapter", "Verdict", "Kind", "Error", "Bound", "Mistakes caught", "Function")


class LedgerTable(nodes.General, nodes.Element):
    """Where the ledger goes, until all pages are read."""


class Ledger(SphinxDirective):
    """`{ledger}`: the totals and the table."""

    def run(self):
        self.env.ledger_page = self.env.docname
        return [LedgerTable()]


def quantity(value: float) -> list[nodes.Node]:
    """A number to two or three digits, powers of ten as a reader writes them."""
    if not math.isfinite(value) or value == 0 or 1e-3 <= abs(value) < 1e4:
        digits = 3 if abs(value) >= 1 else 2
        return [nodes.Text(f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}")]
    mantissa, exponent = f"{value:.1e}".split("e")
    head = "10" if mantissa == "1.0" else f"{mantissa}\N{MULTIPLICATION SIGN}10"
    power = f"{int(exponent)}".replace("-", "\N{MINUS SIGN}")
    return [nodes.Text(head), nodes.superscript(text=power)]


def _sides(left: float, relation: str, right: float) -> list[nodes.Node]:
    return [
        *quantity(left),
        nodes.Text(f"\N{NO-BREAK SPACE}{relation}\N{NO-BREAK SPACE}"),
        *quantity(right),
    ]


def line(record: dict, docname: str) -> list[nodes.Node]:
    """The record as a paragraph: equation, verdict, the planted mistake if any, error and bound."""
    held, label = record.get("verdict") == "held", str(record.get("label"))
    row = nodes.paragraph(classes=["output", "check", "check-held" if held else "check-refuted"])
    row += nodes.inline(text=MARK["held" if held else "refuted"], classes=["check-mark"])
    row += nodes.Text(" ")
    row += _reference(label, docname)
    row += nodes.Text(" holds: " if held else " catches ")
    if not held:
        row += nodes.emphasis(text=str(record.get("mistake")))
        row += nodes.Text(": ")
    row.extend(_evidence(record, held))
    return [row]


def _evidence(record: dict, held: bool) -> list[nodes.Node]:
    """The two numbers compared, and what they are."""
    try:
        error, bound = float(record["error"]), float(record["bound"])
    except (KeyError, TypeError, ValueError):
        return [nodes.Text("no numbers")]
    relation, sides = ("≤" if held else ">"), record.get("sides")
    if record.get("kind") == "bound" and sides:
        return [*_sides(sides[0], relation, sides[1]), nodes.Text(", ratio "), *quantity(error)]
    if record.get("kind") == "law":
        return [*_sides(error, relation, bound), nodes.Text(" standard errors")]
    if record.get("kind") == "order" and sides:
        slope = [
            nodes.Text("slope "),
            *quantity(sides[0]),
            nodes.Text(", claimed "),
            *quantity(sides[1]),
        ]
        return [*slope, nodes.Text(", off by "), *_sides(error, relation, bound)]
    return [
        nodes.Text(f"{AMOUNT.get(record.get('kind'), 'error')} "),
        *_sides(error, relation, bound),
    ]


def _reference(label: str, docname: str) -> addnodes.pending_xref:
    domain, role = ("prf", "ref") if label.startswith("thm:") else ("math", "eq")
    return addnodes.pending_xref(
        "",
        nodes.inline(text=label),
        refdomain=domain,
        reftype=role,
        reftarget=label,
        refdoc=docname,
        refwarn=False,
    )


def row_id(label: str) -> str:
    """The anchor of an equation's first row on the ledger page."""
    return nodes.make_id(f"row-{label}")


def resolved(app, doctree, docname):
    """Put a badge beside each labelled equation, and the table where it belongs."""
    for display in list(doctree.findall(nodes.math_block)):
        if display.get("label"):
            box = nodes.container(classes=["equation"])
            display.parent.replace(display, box)
            box += [
                display,
                nodes.paragraph(
                    "", "", badge(app, docname, display["label"]), classes=["equation-badge"]
                ),
            ]
    for place in list(doctree.findall(LedgerTable)):
        place.replace_self(table(app, docname))


def verdict(app, docname: str, label: str) -> str:
    """checked, definition, quoted, or unchecked: what the page says of one of its equations."""
    page = pages(app.env)[docname]
    if any(r.get("label") == label and r.get("verdict") == "held" for r in page.records):
        return "checked"
    return next((e.mark for e in page.equations if e.label == label and e.mark), "unchecked")


def badge(app, docname: str, label: str) -> nodes.Node:
    state = verdict(app, docname, label)
    text = nodes.inline(
        text=f"✓ {state}" if state == "checked" else state, classes=["badge-" + state]
    )
    where = getattr(app.env, "ledger_page", None)
    return (
        make_refnode(app.builder, docname, where, row_id(label), [text], "Its row in the ledger")
        if where
        else text
    )


def table(app, docname: str) -> list[nodes.Node]:
    """Totals, then one row for each equation, kind and bound."""
    entries = rows(app.env)
    body, seen = nodes.tbody(), set()
    for key in dict.fromkeys((r["label"], r["kind"], r["bound"], r["chapter"]) for r in entries):
        group = [r for r in entries if (r["label"], r["kind"], r["bound"], r["chapter"]) == key]
        ids = [] if key[0] in seen else [row_id(key[0])]
        seen.add(key[0])
        body += nodes.row("", *_cells(app, docname, group), ids=ids)
    head = nodes.thead("", nodes.row("", *(nodes.entry("", nodes.paragraph(text=t)) for t in HEAD)))
    columns = [nodes.colspec(colwidth=1) for _ in HEAD]
    grid = nodes.table(
        "", nodes.tgroup("", *columns, head, body, cols=len(HEAD)), classes=["ledger"]
    )
    return [nodes.paragraph("", "", *totals(entries), classes=["ledger-totals"]), grid]


def totals(entries: list[dict]) -> list[nodes.Node]:
    equations = {
        r["label"]: "checked" if r["kind"] else r["verdict"]
        for r in entries
        if r["label"].startswith("eq:")
    }
    states, verdicts = Counter(equations.values()), Counter(r["verdict"] for r in entries)
    kinds = Counter(r["mistake"].partition(":")[0] for r in entries if r["mistake"])
    split = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    listed = ", ".join(
        f"{states[s]} {s}" for s in ("checked", "definition", "quoted", "unchecked") if states[s]
    )
    return [
        nodes.strong(text=f"{len(equations)} labelled equations"),
        nodes.Text(f": {listed}. "),
        nodes.strong(text=f"{verdicts['held']} checks hold"),
        nodes.Text(" and "),
        nodes.strong(text=f"{verdicts['refuted']} planted mistakes are caught"),
        nodes.Text(f" ({split})." if split else "."),
    ]


def _cells(app, docname: str, group: list[dict]) -> list[nodes.entry]:
    first, env = group[0], app.env
    held = [r["error"] for r in group if r["verdict"] == "held"]
    state = "checked" if held else first["verdict"]
    owner = next((d for d in pages(env) if chapter_number(d) == first["chapter"]), docname)
    number = "" if first["chapter"] is None else str(first["chapter"])
    caught = dict.fromkeys(r["mistake"] for r in group if r["mistake"])
    mistakes = nodes.bullet_list(
        "", *(nodes.list_item("", nodes.paragraph(text=mistake)) for mistake in caught)
    )
    return [
        _entry(
            _resolve(app, docname, first["label"]),
            nodes.Text(" "),
            nodes.literal(text=first["label"]),
        ),
        _entry(
            make_refnode(app.builder, docname, owner, "", nodes.Text(number))
            if number
            else nodes.Text("")
        ),
        _entry(nodes.inline(text=state, classes=[f"badge-{state}"])),
        _entry(nodes.Text(first["kind"] or "—")),
        _entry(*(quantity(max(held)) if held else [nodes.Text("—")])),
        _entry(*(quantity(first["bound"]) if first["bound"] else [nodes.Text("—")])),
        nodes.entry("", mistakes) if len(mistakes) else _entry(nodes.Text("—")),
        _entry(*_functions(app, docname, first["label"])),
    ]


def _entry(*children: nodes.Node) -> nodes.entry:
    return nodes.entry("", nodes.paragraph("", "", *children))


def _resolve(app, docname: str, label: str) -> nodes.Node:
    xref = _reference(label, docname)
    domain = app.env.get_domain(xref["refdomain"])
    found = domain.resolve_xref(
        app.env, docname, app.builder, xref["reftype"], label, xref, xref[0]
    )
    return found or nodes.literal(text=label)


def _functions(app, docname: str, label: str) -> list[nodes.Node]:
    """The functions that implement the equation, each linked to its entry on the API page."""
    anchors, found = getattr(app.env, "api_anchors", {}), []
    for name, _, _ in app.env.ledger_functions.get(label, []):
        text = nodes.literal(text=name.partition(".")[2])
        if name in anchors:
            text = make_refnode(app.builder, docname, anchors[name], nodes.make_id(name), [text])
        found += [nodes.Text(", "), text]
    return found[1:] or [nodes.Text("—")]


def setup(app):
    app.add_node(LedgerTable)
    app.add_directive("ledger", Ledger)
    app.connect("doctree-resolved", resolved)
