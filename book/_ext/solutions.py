"""Fill the page of explanations from `solutions/NN.md`: the prose of each, folded, without code.

Answers stay outside the site; why they are right is worth reading after an attempt.
"""

import re
from pathlib import Path

PAGE = "book/solutions"
HEADING = re.compile(r"^## (ex:[\w-]+)$", re.M)
TITLE = re.compile(r"^:::\{exercise\} (.+)\n:label: (ex:[\w-]+)$", re.M)


def explanations(text: str) -> dict[str, str]:
    """The prose between each heading and its first block of code, by label."""
    parts = HEADING.split(text)[1:]
    return {label: body.split("```", 1)[0].strip() for label, body in zip(parts[::2], parts[1::2])}


def page(root: Path) -> str:
    """Markdown of all explanations, chapter by chapter, in the order of the files."""
    lines = []
    for file in sorted(root.glob("solutions/[0-9][0-9].md")):
        chapter = next(root.glob(f"book/{file.stem}-*.md"))
        titles = {label: title for title, label in TITLE.findall(chapter.read_text("utf8"))}
        lines += [f"## Chapter {int(file.stem)}", ""]
        for label, prose in explanations(file.read_text("utf8")).items():
            lines += [f":::{{admonition}} {titles[label]}", ":class: dropdown", ""]
            lines += [f"*{{ref}}`{label}`.*", "", prose, ":::", ""]
    return "\n".join(lines)


def fill(app, docname, source):
    if docname == PAGE:
        source[0] += "\n" + page(Path(app.srcdir))


def setup(app):
    app.connect("source-read", fill)
    app.connect("env-get-outdated", lambda app, env, *_: [PAGE] if PAGE in env.found_docs else [])
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
