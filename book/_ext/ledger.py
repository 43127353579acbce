"""The ledger: every labelled equation, the checks that it passed and the mistakes that they caught.

Executed cells display check records (`onepath.verify`). This extension reads them while myst-nb
renders the page, audits the book against them (`ledger_rules`), shows them (`ledger_pages`) and
writes `ledger.json`. It reports what is wrong as a warning, and warnings fail the book's build.
"""

import json
from pathlib import Path

import ledger_pages
import ledger_rules
from docutils import nodes
from ledger_data import Equation, Page, pages, rows
from myst_nb.core.render import load_mime_renders
from sphinx.util import logging

MIME = "application/vnd.onepath.check+json"
MARKS = ("definition", "quoted")
log = logging.getLogger(__name__)


class Records:
    """myst-nb plugin: collect each check record and show it as one quiet line."""

    mime_priority_overrides = [("*", MIME, 1)]

    @staticmethod
    def handle_mime(renderer, data, inline):
        if data.mime_type != MIME:
            return None
        env = renderer.renderer.sphinx_env
        record = dict(data.content) | {"line": data.line}
        pages(env).setdefault(env.docname, Page()).records.append(record)
        return ledger_pages.line(record, env.docname)


def purge(app, env, docname):
    pages(env).pop(docname, None)


def read_displays(app, doctree):
    """Note the displayed equations of a page, and the claims that its front matter carries."""
    page = pages(app.env).setdefault(app.env.docname, Page())
    page.claims = json.loads(app.env.metadata[app.env.docname].get("claims", "{}"))
    for display in doctree.findall(nodes.math_block):
        marks = [mark for mark in MARKS if mark in display["classes"]]
        if label := display.get("label"):
            cited = ledger_rules.cites(display)
            page.equations.append(Equation(label, (marks or [None])[0], display.line, cited))
        elif "step" not in display["classes"] and not ledger_rules.in_proof(display):
            page.stray.append(display.line)


def audit(app, env):
    """Report every broken rule, in every build: also in one that reads no page again."""
    folder = Path(app.srcdir)
    env.ledger_functions = ledger_rules.functions(folder / app.config.ledger_package)
    for where, message in ledger_rules.problems(env, pages(env), env.ledger_functions, folder):
        log.warning(message, location=where, type="ledger")
    return [name for name in [getattr(env, "ledger_page", None)] if name in env.found_docs]


def write(app, error):
    """Write the ledger; a build that failed or warned leaves none, and nothing to build upon."""
    target = Path(app.outdir).parent / "ledger.json"
    if error is None and app._warncount == 0:
        target.write_text(json.dumps(rows(app.env), indent=1, ensure_ascii=False) + "\n", "utf8")
    else:  # Sphinx warns of a page once, when it reads it: the next build would pass
        target.unlink(missing_ok=True)
        (Path(app.doctreedir) / "environment.pickle").unlink(missing_ok=True)


def setup(app):
    app.add_config_value("ledger_package", "src/onepath", "env")
    plugins = load_mime_renders()  # myst-nb's own list, filled from entry points and kept: join it
    if Records not in plugins:
        plugins.append(Records)
    ledger_pages.setup(app)
    app.connect("env-purge-doc", purge)
    app.connect("doctree-read", read_displays)
    app.connect("env-updated", audit)
    app.connect("build-finished", write)
    return {"env_version": 1, "parallel_read_safe": False, "parallel_write_safe": True}
