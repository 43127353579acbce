"""Chapter numbers come from file names: `06-name.md` is chapter 6, whichever chapters exist.

Sphinx numbers the entries of a toctree in order: a missing chapter would renumber all that follow.
Here the number of the file is written into Sphinx's own tables of section numbers, before figures,
equations, theorems and exercises are counted: one place, from which all of them agree. Other pages
have no number.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.environment.collectors.toctree import TocTreeCollector

CHAPTER = re.compile(r"(?:^|/)(\d\d)-[^/]+$")


def chapter_number(docname: str) -> int | None:
    """6 for `book/06-one-path`, None for a page that is not a chapter."""
    match = CHAPTER.search(docname)
    return int(match.group(1)) if match else None


def assign(app, env):
    """Number the sections of every chapter, then count what is numbered within them."""
    for docname, toc in env.tocs.items():
        number = chapter_number(docname)
        if number is not None:
            env.toc_secnumbers[docname] = {}
            _walk(toc, (number,), 0, env.toc_secnumbers[docname])
            env.titles[docname]["secnumber"] = (number,)
    return TocTreeCollector().assign_figure_numbers(env)


def _walk(entries, number, depth, table):
    """The title carries the chapter's number; the sections under it count from one."""
    count = 0
    for item in (child for child in entries.children if isinstance(child, nodes.list_item)):
        count += 1
        here = number if depth == 0 else (*number, count)
        for child in item.children:
            if isinstance(child, addnodes.compact_paragraph):
                reference = child[0]
                reference["secnumber"] = table[reference["anchorname"]] = here
            elif isinstance(child, nodes.bullet_list):
                _walk(child, here, depth + 1, table)


def name_chapters(app, doctree, docname):
    """A numbered reference to a chapter reads "Chapter 6", one to a section "Section 6.2"."""
    for reference in doctree.findall(nodes.reference):
        text = reference.astext()
        if re.fullmatch(r"Section \d+", text):
            for leaf in list(reference.findall(nodes.Text)):
                leaf.parent.replace(leaf, nodes.Text(leaf.replace("Section", "Chapter")))


def setup(app):
    app.connect("env-get-updated", assign, priority=900)  # after Sphinx's own
    app.connect("doctree-resolved", name_chapters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
