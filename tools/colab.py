"""From the MyST Markdown of the site to the plain Markdown that Colab and JupyterLab show.

They know no directives, roles, labels or attributes. Each directive that a chapter may use (the
list is in CONTRIBUTING) has its plain form here, each role becomes text that links into the site,
and anything else is an error: nothing raw reaches a reader. Numbers are counted in the order of the
text and must be those of the site.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import NamedTuple

from sphinx.directives.code import LiteralIncludeReader

from chapters import BookError, Chapter, Project
from labels import Labels, Target

KINDS = "theorem lemma proposition corollary definition remark example algorithm"
THEOREMS = {f"prf:{kind}" for kind in KINDS.split()}
ADMONITIONS = {"admonition", "note", "tip", "warning", "important"}
FENCE = re.compile(
    r"^(?P<indent> *)(?P<marks>`{3,}|:{3,}|~{3,})(?:\{(?P<name>[\w:-]+)\})? *(?P<rest>.*)$"
)
OPTION = re.compile(r"^:(?P<key>[\w-]+):(?: +(?P<value>.*))?$")
DISPLAY = re.compile(r"^(?P<indent> *)\$\$(?P<body>.*?)\$\$ *(?:\((?P<label>[\w:-]+)\))? *$", re.S)
HEADING = re.compile(r"^(?P<marks>#{1,6}) +(?P<title>.*?)(?: +#*)?$")
INLINE = re.compile(
    r"\{(?P<role>[\w:+-]+)\}(?P<ticks>`+)(?P<content>.+?)(?P=ticks)(?!`)"
    r"|(?P<code>`+)(?!`).+?(?<!`)(?P=code)(?!`)"
    r"|(?P<math>(?<![\\$])\$(?!\$)(?:\\.|[^$\\])+\$)"
    r"|(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<href>[^)\s]+)(?: +\"[^\"]*\")?\)",
    re.S,
)
TITLED = re.compile(r"(?P<title>.*?)\s*<(?P<target>[^<>]+)>", re.S)
ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.S)


class Unsupported(BookError):
    """A page uses what has no plain form."""


class Glued(NamedTuple):
    """Marks set around a value that the run gives to the prose."""

    before: str
    after: str


@dataclass
class Converter:
    """Converts the cells of one chapter, in their order."""

    chapter: Chapter
    labels: Labels
    about: Project
    glued: dict[str, str]
    root: Path
    hole: Glued | None = None

    def __post_init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.levels: list[int] = []

    # What a notebook asks for.

    def text(self, source: str) -> str:
        """A Markdown cell."""
        lines = self.blocks(source.splitlines())
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")

    def caption(self, metadata: dict) -> str | None:
        """The caption of the figure that a code cell makes, from the cell's options."""
        figure = metadata.get("mystnb", {}).get("figure")
        if not figure or "caption" not in figure:
            return None
        number = self.number("figure", figure.get("name"))
        return f"**Figure {number}.** {self.inline(str(figure['caption']).strip())}"

    # Blocks.

    def blocks(self, lines: list[str]) -> list[str]:
        """Plain lines for MyST lines; `inline` gets whole paragraphs: a role may span lines."""
        out: list[str] = []
        plain: list[str] = []

        def flush() -> None:
            if plain:
                out.extend(self.inline("\n".join(plain)).split("\n"))
                plain.clear()

        at = 0
        while at < len(lines):
            line = lines[at]
            fence = FENCE.match(line)
            if fence:
                end = self.closing(lines, at, fence["marks"])
                flush()
                out.extend(self.fenced(fence, lines[at + 1 : end], lines[at : end + 1]))
                at = end + 1
            elif line.lstrip().startswith("$$"):
                end = at
                while not DISPLAY.match(text := "\n".join(lines[at : end + 1])):
                    end += 1
                    if end == len(lines):
                        raise self.unsupported(f"a display that does not end: {line.strip()}")
                flush()
                display = DISPLAY.match(text)
                shown = self.display(display["body"], display["label"])
                out.extend(display["indent"] + row for row in shown)
                at = end + 1
            else:
                if re.fullmatch(r" *\([\w:-]+\)= *", line) or line.startswith(("% ", "%%")):
                    line = ""
                if re.match(r"\\begin\{", line.lstrip()):
                    raise self.unsupported("a bare TeX environment; write $$…$$ (eq:label)")
                if re.match(r"\[\^[^\]]+\]", line) or line.startswith("+++"):
                    raise self.unsupported(f"footnote or block break: {line}")
                heading = HEADING.match(line)
                if heading:
                    flush()
                    out.extend(self.heading(heading))
                else:
                    plain.append(line)
                at += 1
        flush()
        return out

    def closing(self, lines: list[str], start: int, marks: str) -> int:
        for at in range(start + 1, len(lines)):
            text = lines[at].strip()
            if len(text) >= len(marks) and set(text) == {marks[0]}:
                return at
        raise self.unsupported(f"a block that does not end: {lines[start]}")

    def fenced(self, fence: re.Match, body: list[str], whole: list[str]) -> list[str]:
        """A directive, or a listing, which stays as it is."""
        if not fence["name"]:
            if fence["marks"][0] == ":":
                raise self.unsupported(f"a colon fence without a directive: {whole[0]}")
            return whole
        options = {}
        body = [line.removeprefix(fence["indent"]) for line in body]
        while body and (option := OPTION.match(body[0])):
            options[option["key"]] = option["value"] or ""
            body.pop(0)
        lines = self.directive(fence["name"], fence["rest"].strip(), options, body)
        return ["", *(fence["indent"] + line for line in lines), ""]

    def directive(self, name: str, argument: str, options: dict, body: list[str]) -> list[str]:
        if name == "math":
            return self.display("\n".join([argument, *body]), options.get("label"))
        if name in THEOREMS:
            kind = name.removeprefix("prf:")
            return self.box(self.titled(kind, argument, options), body)
        if name == "prf:proof":
            head = f"*Proof{f' ({self.inline(argument)})' if argument else ''}.*"
            return [head, "", *self.blocks(body), "", "$\\square$"]
        if name == "exercise":
            return self.box(self.titled("exercise", argument, options), body)
        if name in ADMONITIONS:
            return self.box(f"**{self.inline(argument) if argument else name.capitalize()}**", body)
        if name == "figure":
            return self.figure(argument, options, body)
        if name == "list-table":
            return self.table(argument, options, body)
        if name == "literalinclude":
            return self.listing(argument, options)
        raise self.unsupported(f"directive {{{name}}}")

    def titled(self, kind: str, argument: str, options: dict) -> str:
        head = kind.capitalize()
        if "nonumber" not in options:
            head += f" {self.number(kind, options.get('label'))}"
        return f"**{head}**" + (f" ({self.inline(argument)})" if argument else "")

    def box(self, head: str, body: list[str]) -> list[str]:
        """A quotation; its displays go on one line, else they would hold the marks of quotation."""
        text = "\n".join([head, "", *self.blocks(body)]).rstrip()
        text = re.sub(r"\n{3,}", "\n\n", text)
        text = re.sub(
            r"\$\$\n(.*?)\n *\$\$", lambda m: f"$$ {' '.join(m[1].split())} $$", text, flags=re.S
        )
        return [f"> {line}".rstrip() for line in text.split("\n")]

    def display(self, body: str, label: str | None) -> list[str]:
        """A displayed equation, with the number of the site as its tag."""
        body = re.sub(r"(?<!\\)%.*", "", body)
        lines = [line.strip() for line in body.splitlines() if line.strip()]
        if r"\\" in ENVIRONMENT.sub("", "\n".join(lines)):
            lines = [r"\begin{aligned}", *lines, r"\end{aligned}"]
        if label:
            lines.append(rf"\tag{{{self.number('equation', label)}}}")
        return ["$$", *lines, "$$"]

    def heading(self, heading: re.Match) -> list[str]:
        """A heading with its number; under the title, a line that leads to the page."""
        depth = len(heading["marks"])
        self.levels = [*self.levels[:depth], *[0] * (depth - len(self.levels))]
        self.levels[depth - 1] += 1
        number = ".".join(map(str, [self.chapter.number, *self.levels[1:]]))
        known = self.labels.sections.get(self.chapter.docname, [])
        self.counts["heading"] += 1
        if len(known) < self.counts["heading"] or known[self.counts["heading"] - 1] != number:
            raise BookError(
                f"{self.chapter.path.name}: section {number} of the notebook is not on the site, "
                f"which has {', '.join(known) or 'none'}; were chapters edited since it was built?"
            )
        lines = [f"{heading['marks']} {number} {self.inline(heading['title'])}"]
        if depth == 1:
            page = f"{self.about.site}/{self.chapter.docname}.html"
            lines += [
                "",
                f"*This notebook is [chapter {number}]({page}) of the book: the same text and the "
                "same code, to run and to change. Its first cell installs the package.*",
            ]
        return lines

    def figure(self, path: str, options: dict, body: list[str]) -> list[str]:
        number = self.number("figure", options.get("name")) if any(body) else ""
        picture = f"![{options.get('alt', '')}]({self.image(path)})"
        if not number:
            return [picture]
        return [picture, "", f"**Figure {number}.** {self.inline(chr(10).join(body).strip())}"]

    def table(self, title: str, options: dict, body: list[str]) -> list[str]:
        """A list-table, whose rows are lists of lists, as a table of pipes."""
        rows: list[list[str]] = []
        for line in body:
            if row := re.match(r"^[*-] +- ?(.*)$", line):
                rows.append([row[1]])
            elif cell := re.match(r"^ +- ?(.*)$", line):
                rows[-1].append(cell[1])
            elif line.strip():
                rows[-1][-1] += " " + line.strip()
        cells = [[self.cell(text) for text in row] for row in rows]
        if int(options.get("header-rows", 0)) != 1 or len({len(row) for row in cells}) != 1:
            raise self.unsupported(
                "a list-table without one header row, or with rows of unequal length"
            )
        lines = [f"| {' | '.join(row)} |" for row in cells]
        lines.insert(1, "|" + " --- |" * len(cells[0]))
        if title:
            head = f"**Table {self.number('table', options.get('name'))}.** {self.inline(title)}"
            lines = [head, "", *lines]
        return lines

    def cell(self, text: str) -> str:
        """A cell of a table, where a bar would end it."""
        parts = re.split(r"(\$[^$]+\$)", self.inline(text.strip()))
        for at, part in enumerate(parts):
            if part.startswith("$"):
                part = part.replace(r"\|", r"\Vert ").replace("|", r"\vert ")
            parts[at] = part if part.startswith("$") else part.replace("|", r"\|")
        return "".join(parts)

    def listing(self, path: str, options: dict) -> list[str]:
        """Package code, read by the reader of the site."""
        file = self.resolve(path)
        language = options.pop("language", "python")
        caption = options.pop("caption", "")
        options = {key: self.flag(key, value) for key, value in options.items()}
        for shown in ("linenos", "emphasize-lines", "name", "lineno-match", "class"):
            options.pop(shown, None)
        reader = LiteralIncludeReader(str(file), options, SimpleNamespace(source_encoding="utf-8"))
        text, _ = reader.read()
        place = file.relative_to(self.root).as_posix()
        address = f"{self.about.repository}/blob/{self.about.tag}/{place}"
        name = self.inline(caption) or f"`{file.name}`"
        return [f"```{language}", *text.rstrip("\n").split("\n"), "```", "", f"[{name}]({address})"]

    @staticmethod
    def flag(key: str, value: str) -> object:
        if key in ("dedent", "tab-width", "lineno-start"):
            return int(value) if value else None
        return value or None

    # Inline.

    def inline(self, text: str) -> str:
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
            return f"[{self.inline(text) or target.name}]({target.address(self.about.site)})"
        if not page.endswith(".md"):
            raise self.unsupported(f"a link to {href}; link to pages (name.md) and labels (#label)")
        docname = self.docname(page.removesuffix(".md"))
        shown = self.inline(text) or self.labels.titles[docname]
        return f"[{shown}]({self.about.site}/{docname}.html{'#' + label if label else ''})"

    # Names and places.

    def target(self, label: str) -> Target:
        found = self.labels.targets.get(label) or self.labels.targets.get(label.lower())
        if found is None:
            raise self.unsupported(f"a reference to {label}, which the site does not have")
        return found

    def number(self, kind: str, label: str | None) -> str:
        """The next number of this kind in the chapter; it must be the one that the site gives."""
        self.counts[kind] += 1
        number = f"{self.chapter.number}.{self.counts[kind]}"
        if label and (found := self.target(label)).number != number:
            raise BookError(
                f"{self.chapter.path.name}: {label} is {kind} {number} in the notebook and "
                f"{found.number or 'none'} on the site; were chapters edited since it was built?"
            )
        return number

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
