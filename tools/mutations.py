"""The wrong formulas that `mutants.py` plants: every change of one operator, sign, function,
comparison or numeric constant that can be made inside a function of a module."""

import ast
import copy
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OPERATORS = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.Pow: [ast.Mult],
    ast.FloorDiv: [ast.Mod],
    ast.Mod: [ast.FloorDiv],
}
COMPARISONS = {
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.GtE],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.LtE],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
}
FUNCTIONS = {
    "exp": ["log", "expm1"],
    "expm1": ["exp"],
    "log": ["exp", "sqrt"],
    "sin": ["cos"],
    "cos": ["sin"],
    "sqrt": ["square"],
    "sum": ["mean"],
    "mean": ["sum"],
    "std": ["var"],
    "min": ["max"],
    "max": ["min"],
    "abs": ["neg"],
    "softmax": ["log_softmax"],
    "logsumexp": ["sum"],
    "zeros_like": ["ones_like"],
    "ones_like": ["zeros_like"],
    "new_zeros": ["new_ones"],
    "randn": ["rand"],
    "rand": ["randn"],
    "tanh": ["sigmoid"],
    "floor": ["ceil"],
    "quantile": ["nanmedian"],
}


@dataclass(frozen=True)
class Mutant:
    """One change of the source: what stood there, what stands there now."""

    module: str
    function: str
    kind: str
    before: str
    after: str
    line: int
    source: str  # the module, changed
    occurrence: int = 0

    @property
    def name(self) -> str:
        """Stable under changes elsewhere: the function, the change, and which of several alike."""
        again = f" #{self.occurrence + 1}" if self.occurrence else ""
        return f"{self.module}.{self.function}: {self.before} -> {self.after}{again}"


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Kind and replacement of every change that can be made at one node."""
    if isinstance(node, ast.BinOp):
        for new in OPERATORS.get(type(node.op), []):
            kind = "sign" if isinstance(node.op, ast.Add | ast.Sub) else "operator"
            yield kind, ast.BinOp(node.left, new(), node.right)
        if isinstance(node.op, ast.MatMult):
            yield "operator", ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", node.operand
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for new in COMPARISONS.get(type(op), []):
                yield (
                    "comparison",
                    ast.Compare(
                        node.left, [*node.ops[:i], new(), *node.ops[i + 1 :]], node.comparators
                    ),
                )
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield "constant", ast.Constant(other_number(node.value))
    elif isinstance(node, ast.Call):
        yield from changed_calls(node)


def other_number(value: float) -> float:
    if isinstance(value, int):
        return {0: 1, 1: 0}.get(value, value + 1)
    return 2 * value if value else 1.0


def changed_calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    f = node.func
    name = f.attr if isinstance(f, ast.Attribute) else f.id if isinstance(f, ast.Name) else ""
    for new in FUNCTIONS.get(name, []):
        other = copy.deepcopy(node)
        if isinstance(f, ast.Attribute):
            other.func.attr = new
        else:
            other.func.id = new
        yield "function", other
    if name == "cholesky":
        yield "function", ast.Attribute(node, "mT", ast.Load())
    if name == "einsum" and isinstance(node.args[0], ast.Constant):
        other = copy.deepcopy(node)
        other.args[0].value = re.sub(r"(\w)(\w)(?=[,-])", r"\2\1", node.args[0].value, count=1)
        if other.args[0].value != node.args[0].value:
            yield "function", other


def sites(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every node inside a function or a lambda, with the function's name.

    Left out: annotations, decorators, and the text of errors, none of which computes anything.
    """

    def walk(node: ast.AST, where: str, inside: bool) -> Iterator[tuple[str, ast.AST]]:
        if inside:
            yield where, node
        for field, child in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for part in child if isinstance(child, list) else [child]:
                if not isinstance(part, ast.AST) or isinstance(part, ast.Raise | ast.JoinedStr):
                    continue
                if isinstance(part, ast.FunctionDef | ast.ClassDef):
                    name = f"{where}.{part.name}" if where else part.name
                    yield from walk(part, name, isinstance(part, ast.FunctionDef))
                elif isinstance(part, ast.Assign) and not where:
                    yield from walk(part, ast.unparse(part.targets[0]), inside)
                else:
                    yield from walk(part, where, inside or isinstance(part, ast.Lambda))

    yield from walk(tree, "", False)


def only_a_choice(node: ast.AST, new: ast.AST) -> bool:
    """Where an answer is tried, and how closely: any choice that convicts does."""
    number = lambda x: isinstance(x, ast.Constant) and type(x.value) in (int, float)
    if isinstance(node, ast.UnaryOp):
        return number(node.operand)
    if isinstance(node, ast.Compare):
        edges = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
        moved = [(a, b) for a, b in zip(node.ops, new.ops) if type(a) is not type(b)]
        return all(edges.get(type(a)) is type(b) for a, b in moved)
    return number(node)


def mutants_of(path: Path) -> list[Mutant]:
    source = path.read_text()
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found, seen = [], Counter()
    for where, node in sites(ast.parse(source)):
        for kind, new in changes(node):
            if path.stem.startswith("exercises") and only_a_choice(node, new):
                continue
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            whole = source.encode()
            changed = whole[:begin] + f"({ast.unparse(new)})".encode() + whole[end:]
            before, after = ast.unparse(node), ast.unparse(new)
            key = (where, before, after)
            found.append(
                Mutant(
                    path.stem, where, kind, before, after, node.lineno, changed.decode(), seen[key]
                )
            )
            seen[key] += 1
    return found


def draw(paths: list[Path], n: int, seed: int) -> list[Mutant]:
    """n different places, each equally likely, and one change at each."""
    everything: dict[tuple, list[Mutant]] = {}
    for path in paths:
        for m in mutants_of(path):
            everything.setdefault((m.module, m.line, m.function, m.before), []).append(m)
    rng = random.Random(seed)
    chosen = rng.sample(sorted(everything), min(n, len(everything)))
    return [rng.choice(everything[place]) for place in chosen]
