"""Write the picture of the README and of the landing page: the first figure of chapter 6, as built.

python tools/cover.py      after `make book`
"""

import base64
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
CHAPTER, FIGURE = "06-one-path-many-dynamics", "fig:three-groups"


def main() -> None:
    notebook = nbformat.read(ROOT / f"_build/executed/{CHAPTER}.ipynb", 4)
    for cell in notebook.cells:
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == FIGURE:
            picture = next(o.data["image/png"] for o in cell.outputs if "image/png" in o.data)
            (ROOT / "book/_static/cover.png").write_bytes(base64.b64decode(picture))
            return
    raise SystemExit(f"{CHAPTER} has no figure {FIGURE}; was it renamed?")


if __name__ == "__main__":
    main()
