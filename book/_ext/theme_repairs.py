"""The address of the project, and repairs of the theme: our notebooks, no script from elsewhere."""

import shutil
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx_proof.nodes import proof_node

CONTENT = ("proof-content", "exercise-content", "solution-content")


def address(app, config):
    """Read address and version from pyproject.toml: links into the source name the release tag."""
    project = tomllib.loads((Path(app.confdir) / "pyproject.toml").read_text("utf8"))["project"]
    repository, tag = project["urls"]["Repository"].rstrip("/"), f"v{project['version']}"
    config.site_source = f"{repository}/blob/{tag}"
    config.html_baseurl = project["urls"]["Documentation"].rstrip("/") + "/"
    config.html_theme_options |= {"repository_url": repository, "repository_branch": tag}
    config.release = config.version = project["version"]


def boxes(app, doctree, docname):
    """One identifier once: the boxes of theorems and exercises all call their content alike."""
    for section in doctree.findall(nodes.section):
        if section["ids"] and section["ids"][0] in CONTENT:
            section["ids"] = []
    for proof in doctree.findall(proof_node):
        box = proof[0]
        box["ids"], box["classes"] = [], ["proof-text"]
        word = next(iter(box.findall(nodes.Text)))
        if word.startswith("Proof. "):
            rest = nodes.Text(word.removeprefix("Proof. "))
            word.parent.replace(word, [nodes.emphasis(text="Proof."), nodes.Text(" "), rest])


def notebook_dependency(app, doctree):
    """Read a chapter again when its notebook was executed again: its outputs come from there."""
    notebook = Path(app.env.doc2path(app.env.docname)).with_suffix(".ipynb")
    if notebook.exists():
        app.env.note_dependency(str(notebook))


def page_scripts(app, pagename, templatename, context, doctree):
    """Drop the script for live cells, which the theme adds unused from another host."""
    context["script_files"] = [js for js in context.get("script_files", []) if not _is_thebe(js)]


def _is_thebe(script) -> bool:
    name = getattr(script, "filename", None) or ""
    return "thebe" in name or "THEBE_JS_URL" in (
        getattr(script, "attributes", {}).get("body") or ""
    )


def notebook_download(app, error):
    """Offer our notebooks for download; the theme's hold directives that only Sphinx can read."""
    if error is None and app.builder.format == "html":
        for download in (Path(app.outdir) / "_sources").rglob("*.ipynb"):
            ours = Path(app.srcdir) / download.relative_to(Path(app.outdir) / "_sources")
            if ours.exists():
                shutil.copyfile(ours, download)


def setup(app):
    app.set_html_assets_policy("always")  # a card may show a formula on a page that has none
    app.connect("config-inited", address, priority=100)
    app.connect("doctree-resolved", boxes)
    app.connect("doctree-read", notebook_dependency)
    app.connect("html-page-context", page_scripts, priority=900)
    app.connect("build-finished", notebook_download)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
