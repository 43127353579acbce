"""From the MyST Markdown of the site to the plain Markdown that Colab and JupyterLab show.

They know no directives, roles, labels or attributes. Each directive that a chapter may use (the
list is in CONTRIBUTING) has its plain form here, each role becomes text that links into the site,
and anything else is an error: nothing raw reaches a reader. Numbers are counted in the order of the
text and must be those of the site.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

from sphinx.directives.code import LiteralIncludeReader

from chapters import BookError
from prose import Prose

KINDS = "theorem lemma proposition corollary definition remark example algorithm"
THEOREMS = {f"prf:{kind}" for kind in KINDS.split()}
ADMONITIONS = {"admonition", "note", "tip", "warning", "important"}
FENCE = re.compile(
    r"^(?P<indent> *)(?P<marks>`{3,}|:{3,}|~{3,})(?:\{(?P<name>[\w:-]+)\})? *(?P<rest>.*)$"
)
OPTION = re.compile(r"^:(?P<key>[\w-]+):(?: +(?P<value>.*))?$")
DISPLAY = re.compile(r"^(?P<indent> *)\$\$(?P<body>.*?)\$\$ *(?:\((?P<label>[\w:-]+)\))? *$", re.S)
HEADING = re.compile(r"^(?P<marks>#{1,6}) +(?P<title>.*?)(?: +#*)?$")
ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.S)


@dataclass
class Converter:
    """Converts the cells of one chapter, in their order."""

    prose: Prose
    counts: Counter[str] = field(default_factory=Counter)
    levels: list[int] = field(default_factory=list)

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
        return f"**Figure {number}.** {self.prose.plain(str(figure['caption']).strip())}"

    # Blocks.

    def blocks(self, lines: list[str]) -> list[str]:
        """Plain lines for MyST lines; `plain` gets whole paragraphs: a role may span lines."""
        out: list[str] = []
        plain: list[str] = []

        def flush() -> None:
            if plain:
                out.extend(self.prose.plain("\n".join(plain)).split("\n"))
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
                        raise self.prose.unsupported(f"a display that does not end: {line.strip()}")
                flush()
                display = DISPLAY.match(text)
                shown = self.display(display["body"], display["label"])
                out.extend(display["indent"] + row for row in shown)
                at = end + 1
            else:
                if re.fullmatch(r" *\([\w:-]+\)= *", line) or line.startswith(("% ", "%%")):
                    line = ""
                if re.match(r"\\begin\{", line.lstrip()):
                    raise self.prose.unsupported("a bare TeX environment; write $$…$$ (eq:label)")
                if re.match(r"\[\^[^\]]+\]", line) or line.startswith("+++"):
                    raise self.prose.unsupported(f"footnote or block break: {line}")
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
        raise self.prose.unsupported(f"a block that does not end: {lines[start]}")

    def fenced(self, fence: re.Match, body: list[str], whole: list[str]) -> list[str]:
        """A directive, or a listing, which stays as it is."""
        if not fence["name"]:
            if fence["marks"][0] == ":":
                raise self.prose.unsupported(f"a colon fence without a directive: {whole[0]}")
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
            head = f"*Proof{f' ({self.prose.plain(argument)})' if argument else ''}.*"
            return [head, "", *self.blocks(body), "", "$\\square$"]
        if name == "exercise":
            return self.box(self.titled("exercise", argument, options), body)
        if name in ADMONITIONS:
            return self.box(
                f"**{self.prose.plain(argument) if argument else name.capitalize()}**", body
            )
        if name == "figure":
            return self.figure(argument, options, body)
        if name == "list-table":
            return self.table(argument, options, body)
        if name == "literalinclude":
            return self.listing(argument, options)
        raise self.prose.unsupported(f"directive {{{name}}}")

    def titled(self, kind: str, argument: str, options: dict) -> str:
        head = kind.capitalize()
        if "nonumber" not in options:
            head += f" {self.number(kind, options.get('label'))}"
        return f"**{head}**" + (f" ({self.prose.plain(argument)})" if argument else "")

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
        number = ".".join(map(str, [self.prose.chapter.number, *self.levels[1:]]))
        known = self.prose.labels.sections.get(self.prose.chapter.docname, [])
        self.counts["heading"] += 1
        if len(known) < self.counts["heading"] or known[self.counts["heading"] - 1] != number:
            raise BookError(
                f"{self.prose.chapter.path.name}: section {number} of the notebook is not on the "
                f"site, which has {', '.join(known) or 'none'}; was it built before the last edit?"
            )
        lines = [f"{heading['marks']} {number} {self.prose.plain(heading['title'])}"]
        if depth == 1:
            page = f"{self.prose.about.site}/{self.prose.chapter.docname}.html"
            lines += [
                "",
                f"*This notebook is [chapter {number}]({page}) of the book: the same text and the "
                "same code, to run and to change. Its first cell installs the package.*",
            ]
        return lines

    def figure(self, path: str, options: dict, body: list[str]) -> list[str]:
        number = self.number("figure", options.get("name")) if any(body) else ""
        picture = f"![{options.get('alt', '')}]({self.prose.image(path)})"
        if not number:
            return [picture]
        return [picture, "", f"**Figure {number}.** {self.prose.plain(chr(10).join(body).strip())}"]

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
            raise self.prose.unsupported(
                "a list-table without one header row, or with rows of unequal length"
            )
        lines = [f"| {' | '.join(row)} |" for row in cells]
        lines.insert(1, "|" + " --- |" * len(cells[0]))
        if title:
            head = (
                f"**Table {self.number('table', options.get('name'))}.** {self.prose.plain(title)}"
            )
            lines = [head, "", *lines]
        return lines

    def cell(self, text: str) -> str:
        """A cell of a table, where a bar would end it."""
        parts = re.split(r"(\$[^$]+\$)", self.prose.plain(text.strip()))
        for at, part in enumerate(parts):
            if part.startswith("$"):
                part = part.replace(r"\|", r"\Vert ").replace("|", r"\vert ")
            parts[at] = part if part.startswith("$") else part.replace("|", r"\|")
        return "".join(parts)

    def listing(self, path: str, options: dict) -> list[str]:
        """Package code, read by the reader of the site."""
        file = self.prose.resolve(path)
        language = options.pop("language", "python")
        caption = options.pop("caption", "")
        options = {key: self.flag(key, value) for key, value in options.items()}
        for shown in ("linenos", "emphasize-lines", "name", "lineno-match", "class"):
            options.pop(shown, None)
        reader = LiteralIncludeReader(str(file), options, SimpleNamespace(source_encoding="utf-8"))
        text, _ = reader.read()
        place = file.relative_to(self.prose.root).as_posix()
        address = f"{self.prose.about.repository}/blob/{self.prose.about.tag}/{place}"
        name = self.prose.plain(caption) or f"`{file.name}`"
        return [f"```{language}", *text.rstrip("\n").split("\n"), "```", "", f"[{name}]({address})"]

    @staticmethod
    def flag(key: str, value: str) -> object:
        if key in ("dedent", "tab-width", "lineno-start"):
            return int(value) if value else None
        return value or None

    def number(self, kind: str, label: str | None) -> str:
        """The next number of this kind in the chapter; it must be the one that the site gives."""
        self.counts[kind] += 1
        number = f"{self.prose.chapter.number}.{self.counts[kind]}"
        if label and (found := self.prose.target(label)).number != number:
            raise BookError(
                f"{self.prose.chapter.path.name}: {label} is {kind} {number} in the notebook and "
                f"{found.number or 'none'} on the site; were chapters edited since it was built?"
            )
        return number
