"""What of an output is kept and compared, and how close two printed numbers must be.

The same code writes the committed notebooks, compares them with a fresh execution and judges the
replay by nbval, so that the three cannot disagree about what counts.

Numbers: another processor, another BLAS or another thread count changes the last bits of a float.
Two printed floats agree if they differ by at most 2e-4 of the larger, or by one unit of the last
digit printed, whichever is more: the first is far below anything that a chapter claims, the second
is what rounding alone can do. Whatever is printed without a decimal digit or an exponent (a count,
a label, a shape) must be equal as text, and so must everything between the numbers.
"""

import json
import re
from collections.abc import Iterable
from math import isfinite

from nbformat import NotebookNode

CHECK = "application/vnd.onepath.check+json"
GLUED = "application/papermill.record/text/plain"
WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT = ("text/plain", CHECK)
RELATIVE = 2e-4
MEASURED = ("error", "sides")  # what differs between processors in a check record
NUMBER = re.compile(r" *[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")


def kept(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """The outputs of a cell without pictures, HTML, widgets and glued values: text and check
    records.

    Pieces of one stream are joined, since how a stream is cut depends on timing.
    """
    result: list[NotebookNode] = []
    for output in outputs:
        kind = output["output_type"]
        if kind == "stream":
            last = result[-1] if result else {}
            if last.get("output_type") == "stream" and last["name"] == output["name"]:
                last["text"] += output["text"]
            else:
                result.append(
                    NotebookNode(output_type=kind, name=output["name"], text=output["text"])
                )
        elif kind in ("display_data", "execute_result"):
            data = output["data"]
            rest = NotebookNode({mime: data[mime] for mime in KEPT if mime in data})
            if WIDGET in data or not rest:
                continue
            entry = NotebookNode(output_type=kind, data=rest, metadata=NotebookNode())
            if kind == "execute_result":
                entry["execution_count"] = output.get("execution_count")
            result.append(entry)
        else:
            result.append(NotebookNode(output))
    return result


def difference(found: Iterable[NotebookNode], expected: Iterable[NotebookNode]) -> str | None:
    """The first difference between two lists of outputs, in words; None if they agree."""
    found, expected = kept(found), kept(expected)
    if len(found) != len(expected):
        return f"stored {_brief(expected)}, came {_brief(found)}"
    for a, b in zip(found, expected):
        if a["output_type"] != b["output_type"] or a.get("name") != b.get("name"):
            return f"stored {b['output_type']}, came {a['output_type']}"
        if a["output_type"] == "error":
            return f"the cell raised {a.get('ename')}: {a.get('evalue')}"
        if set(a.get("data", ())) != set(b.get("data", ())):
            return f"stored {sorted(b.get('data', ()))}, came {sorted(a.get('data', ()))}"
        text, stored = (o.get("text") or o.get("data", {}).get("text/plain", "") for o in (a, b))
        if not alike(_text(text), _text(stored)):
            return f"stored text:\n{_text(stored)}\nfresh text:\n{_text(text)}"
        record, stored = (_stable(o.get("data", {}).get(CHECK)) for o in (a, b))
        if record != stored:
            return f"stored record {json.dumps(stored)}, fresh record {json.dumps(record)}"
    return None


def alike(found: str, expected: str) -> bool:
    """Whether two texts are equal up to the tolerance for printed floats."""
    if NUMBER.sub("#", found) != NUMBER.sub("#", expected):
        return False
    return all(close(a, b) for a, b in zip(NUMBER.findall(found), NUMBER.findall(expected)))


def close(a: str, b: str) -> bool:
    """Whether two printed numbers agree: integers as text, floats within the tolerance."""
    a, b = a.strip(), b.strip()
    x, y = float(a), float(b)
    if a == b or not (isfinite(x) and isfinite(y)):  # digits of a checksum may read as 8e551
        return a == b
    units = [unit(a), unit(b)]
    if units == [None, None]:
        return False
    last = min(u for u in units if u is not None)
    return abs(x - y) <= max(RELATIVE * max(abs(x), abs(y)), last * (1 + 1e-9))


def unit(number: str) -> float | None:
    """One unit of the last digit of a printed float; None for an integer; 0 for a float without
    decimals.

    `1.` is how torch prints a whole number in a tensor of floats: its neighbour `2.` must not pass
    for it.
    """
    mantissa, _, exponent = number.lower().partition("e")
    whole, point, decimals = mantissa.partition(".")
    if not point and not exponent:
        return None
    if not decimals and not exponent:
        return 0.0
    return 10.0 ** (int(exponent or 0) - len(decimals))


def _stable(record: dict | None) -> dict | None:
    return record and {k: v for k, v in record.items() if k not in MEASURED}


def _text(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def _brief(outputs: list[NotebookNode]) -> str:
    return ", ".join(o["output_type"] for o in outputs) or "nothing"
