"""The API reference, from the docstrings of the package as they stand in its files.

Sphinx's autodoc would import the package (and PyTorch with it) and print every alias of a shape in
full. Here the source is parsed: signatures read as they are written, docstrings are Markdown with
the mathematics that they carry, modules come in the order in which they are meant to be read.
"""

import ast
import inspect
import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from ledger_rules import LABEL
from sphinx.util.docutils import SphinxDirective

SECTION = re.compile(r"^(Args|Returns|Yields|Raises):\s*$")
ENTRY = re.compile(r"^(\S[^:]*): (.*)$")


def reading_order(package: Path) -> list[str]:
    """The names of the modules, in the order that the package declares."""
    for node in ast.parse((package / "__init__.py").read_text("utf8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "READING_ORDER":
            return [n for n in ast.literal_eval(node.value) if (package / f"{n}.py").exists()]
    raise ValueError(
        f"{package / '__init__.py'} declares no READING_ORDER; the API page needs one."
    )


def public(tree: ast.Module):
    """Public classes and functions of a module, in order, a class followed by its methods."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, node
            for child in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                    if ast.get_docstring(child):
                        yield f"{node.name}.{child.name}", child


def signature(name: str, node) -> str:
    """The call as it is written in the source, without decorators and body."""
    if isinstance(node, ast.ClassDef):
        fields = [ast.unparse(f) for f in node.body if isinstance(f, ast.AnnAssign)]
        return _call(name, fields) if fields else name
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    free = len(positional) - len(arguments.defaults)
    parts = [
        _parameter(a, arguments.defaults[k - free] if k >= free else None)
        for k, a in enumerate(positional)
        if a.arg not in ("self", "cls")
    ]
    if arguments.vararg:
        parts.append(f"*{_parameter(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        parts.append("*")
    parts += [_parameter(a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults)]
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return _call(name, parts) + result


def _parameter(argument: ast.arg, default) -> str:
    kind = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    equals = " = " if kind else "="
    return argument.arg + kind + (f"{equals}{ast.unparse(default)}" if default else "")


def _call(name: str, parts: list[str]) -> str:
    """On one line when it fits a phone held sideways, else one argument a line."""
    short = f"{name}({', '.join(parts)})"
    if len(short) <= 64:
        return short
    return "\n    ".join([f"{name}(", *(f"{part}," for part in parts)]) + "\n)"


def markdown(docstring: str) -> str:
    """A docstring as MyST: arguments become a definition list, `Book:` labels references."""
    lines, inside = [], False
    for line in inspect.cleandoc(docstring).splitlines():
        if match := SECTION.match(line):
            lines += ["", f"**{match.group(1)}**", ""]
            inside = True
        elif inside and line.startswith("    "):
            body, deeper = line[4:], line[4:].startswith(" ")
            entry = None if deeper else ENTRY.match(body)
            lines += ["", f"`{entry[1]}`", f": {entry[2]}"] if entry else [f"  {body.strip()}"]
        else:
            inside = inside and not line.strip()
            lines.append(line)
    return re.sub(
        r"\bBook:(.*)\Z",
        lambda m: "In the book: " + _references(m[1]),
        "\n".join(lines),
        flags=re.S,
    )


def _references(text: str) -> str:
    roles = {"eq": "eq", "thm": "prf:ref", "fig": "numref"}
    role = lambda m: f"{{{roles.get(m[0].partition(':')[0], 'ref')}}}`{m[0]}`"
    return re.sub(LABEL, role, text).strip()


class Reference(SphinxDirective):
    """`{api-reference}`: a section a module, an entry a public name, with a link to the source."""

    def run(self):
        package = Path(self.env.srcdir) / self.config.ledger_package
        self.env.note_dependency(str(package / "__init__.py"))
        self.env.api_anchors = {}
        return [self.module(package, name) for name in reading_order(package)]

    def module(self, package: Path, name: str) -> nodes.section:
        file = package / f"{name}.py"
        self.env.note_dependency(str(file))
        tree = ast.parse(file.read_text("utf8"))
        section = self.anchored(nodes.section(), f"{package.name}.{name}")
        section += nodes.title("", "", nodes.literal(text=f"{package.name}.{name}"))
        section += self.parsed(ast.get_docstring(tree) or "", file)
        for qualified, node in public(tree):
            entry = self.anchored(
                nodes.container(classes=["api-entry"]), f"{package.name}.{name}.{qualified}"
            )
            call = nodes.literal_block(
                text=signature(qualified, node), language="python", classes=["api-call"]
            )
            link = nodes.reference(
                "", "source", refuri=self.source(file, node), classes=["api-source"]
            )
            link += nodes.inline(text=f" of {qualified}", classes=["visually-hidden"])
            entry += [call, nodes.paragraph("", "", link, classes=["api-source-line"])]
            entry += self.parsed(ast.get_docstring(node) or "", file)
            section += entry
        return section

    def anchored(self, node, name: str):
        """Give a node the anchor of a qualified name, and remember on which page it stands."""
        node["ids"].append(nodes.make_id(name))
        node["names"].append(name)
        self.env.api_anchors[name] = self.env.docname
        return node

    def parsed(self, docstring: str, file: Path) -> list[nodes.Node]:
        """The docstring as nodes; its displays restate equations of the book, so they are steps."""
        holder = nodes.container()
        lines = StringList(markdown(docstring).splitlines(), str(file))
        self.state.nested_parse(lines, self.content_offset, holder)
        for display in holder.findall(nodes.math_block):
            display["classes"].append("step")
        return holder.children

    def source(self, file: Path, node) -> str:
        where = file.relative_to(self.env.srcdir).as_posix()
        return f"{self.config.site_source}/{where}#L{node.lineno}-L{node.end_lineno}"


def setup(app):
    app.add_config_value("site_source", "", "env")  # the address of the files at this release
    app.add_directive("api-reference", Reference)
    return {"env_version": 1, "parallel_read_safe": False, "parallel_write_safe": True}
