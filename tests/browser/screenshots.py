"""Pictures of every page, wide and narrow, light and dark, to be looked at before a release.

python tests/browser/screenshots.py FOLDER [--site _build/html] [--pages api ledger]
"""

import argparse
from pathlib import Path

from driving import HTML, SIZES, THEMES, chromium, context, pages, served, visit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--site", type=Path, default=HTML)
    parser.add_argument(
        "--pages", nargs="*", default=[""], help="only pages whose name contains one of these"
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    names = [n for n in pages(arguments.site) if any(part in n for part in arguments.pages)]
    with served(arguments.site) as address, chromium() as browser:
        for theme in THEMES:
            for size in SIZES:
                page = context(browser, size, theme).new_page()
                for name in names:
                    visit(page, f"{address}/{name}")
                    picture = ".".join([*Path(name).with_suffix("").parts, size, theme, "png"])
                    page.screenshot(path=arguments.folder / picture, full_page=True)


if __name__ == "__main__":
    main()
