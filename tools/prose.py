"""Inline MyST to plain Markdown: roles, links, values of a run; names and places of the book."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from chapters import BookError, Chapter, Project
from labels import Labels, Target

INLINE = re.compile(
    r"\{(?P<role>[\w:+-]+)\}(?P<ticks>`+)(?P<content>.+?)(?P=ticks)(?!`)"
    r"|(?P<code>`+)(?!`).+?(?<!`)(?P=code)(?!`)"
    r"|(?P<math>(?<![\\$])\$(?!\$)(?:\\.|[^$\\])+\$)"
    r"|(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<href>[^)\s]+)(?: +\"[^\"]*\")?\)",
    re.S,
)
TITLED = re.compile(r"(?P<title>.*?)\s*<(?P<target>[^<>]+)>", re.S)


class Unsupported(BookError):
    """A page uses what has no plain form."""


class Glued(NamedTuple):
    """Marks set around a value that the run gives to the prose."""

    before: str
    after: str


@dataclass(frozen=True)
class Prose:
    """Converts the text of one chapter, and knows what its references lead to."""

    chapter: Chapter
    labels: Labels
    about: Project
    glued: dict[str, str]
    root: Path
    hole: Glued | None = None

    def plain(self, text: str) -> str:
        """A paragraph without roles, its links pointing out of the notebook."""
        return INLINE.sub(self._inline, text)

    def _inline(self, match: re.Match) -> str:
        if match["role"]:
            return self.role(match["role"], match["content"])
        if match["href"]:
            return self.link(match["picture"], match["text"], match["href"])
        return match[0]

    def role(self, role: str, content: str) -> str:
        titled = TITLED.fullmatch(content)
        title, name = (
            (titled["title"], titled["target"].strip()) if titled else ("", content.strip())
        )
        if role in ("cite:t", "cite:p"):
            return self.cite(role, content)
        if role == "glue:text":
            return self.value(content)
        if role == "doc":
            docname = self.docname(name)
            shown = title or self.labels.titles.get(docname)
            if shown is None:
                raise self.unsupported(f"{{doc}} of an unknown page {name}")
            return f"[{shown}]({self.about.site}/{docname}.html)"
        if role not in ("eq", "prf:ref", "ref", "numref"):
            raise self.unsupported(f"role {{{role}}}")
        target = self.target(name)
        if role == "ref" and not title:
            title = target.title or target.name
        if role == "numref" and title:
            title = title.replace("%s", target.number).replace("{number}", target.number)
            title = title.replace("{name}", target.title)
        return f"[{title or target.name}]({target.address(self.about.site)})"

    def cite(self, role: str, content: str) -> str:
        shown = []
        for entry in content.split(","):
            if entry.strip() not in self.labels.citations:
                raise self.unsupported(
                    f"citation of {entry.strip()}, which is not in the bibliography"
                )
            authors, year, target = self.labels.citations[entry.strip()]
            text = f"{authors} ({year})" if role == "cite:t" else f"{authors}, {year}"
            shown.append(f"[{text}]({target.address(self.about.site)})")
        return ", ".join(shown) if role == "cite:t" else f"({'; '.join(shown)})"

    def value(self, content: str) -> str:
        """A value that a cell gave to the prose, formatted as the site formats it."""
        name, _, form = content.partition(":")
        if name not in self.glued:
            raise self.unsupported(f"{{glue:text}} of {name!r}, which no cell gives")
        text = self.glued[name]
        if form:
            text = f"{float(text):>{form}}" if form[:1].isdigit() else f"{float(text):{form}}"
        return self.hole.before + text + self.hole.after if self.hole else text

    def link(self, picture: str, text: str, href: str) -> str:
        """A Markdown link: to another page, to a label, to a picture of the book, or out of it."""
        if re.match(r"[a-z]+:", href):
            return f"{picture}[{text}]({href})"
        if picture:
            return f"![{text}]({self.image(href)})"
        page, _, label = href.partition("#")
        if label and not page:
            target = self.target(label)
            return f"[{self.plain(text) or target.name}]({target.address(self.about.site)})"
        if not page.endswith(".md"):
            raise self.unsupported(f"a link to {href}; link to pages (name.md) and labels (#label)")
        docname = self.docname(page.removesuffix(".md"))
        shown = self.plain(text) or self.labels.titles[docname]
        return f"[{shown}]({self.about.site}/{docname}.html{'#' + label if label else ''})"

    # Names and places.

    def target(self, label: str) -> Target:
        found = self.labels.targets.get(label) or self.labels.targets.get(label.lower())
        if found is None:
            raise self.unsupported(f"a reference to {label}, which the site does not have")
        return found

    def docname(self, name: str) -> str:
        """The page that a relative name leads to, seen from this chapter."""
        if name.startswith("/"):
            return name.lstrip("/")
        parts: list[str] = []
        for part in (PurePosixPath(self.chapter.docname).parent / name).parts:
            parts = parts[:-1] if part == ".." else [*parts, part]
        return "/".join(parts)

    def resolve(self, path: str) -> Path:
        """A file named in a chapter; a leading slash means the top folder of the book."""
        base = self.root if path.startswith("/") else self.chapter.path.parent
        file = (base / path.lstrip("/")).resolve()
        if not file.is_file():
            raise self.unsupported(f"a file that is not there: {path}")
        return file

    def image(self, path: str) -> str:
        if re.match(r"[a-z]+:", path):
            return path
        name = self.resolve(path).relative_to(self.root).as_posix()
        return f"{self.about.site}/_images/{self.labels.images.get(name, PurePosixPath(name).name)}"

    def unsupported(self, what: str) -> Unsupported:
        return Unsupported(f"{self.chapter.path.name}: {what} has no plain form for the notebook.")
