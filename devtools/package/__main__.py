"""`make package`: dist/qwen-asr, a folder that runs wherever it is moved. `make package-image`: an image of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from devtools.arguments import parse_arguments
from devtools.package.distributions import NotInstalled
from devtools.package.folder import NAME, NotBuilt, make_folder, version_of
from devtools.package.image import write_image
from devtools.tables import aligned

ROOT = Path(__file__).resolve().parents[2]
_SHOWN = 8  # parts in the table of sizes; the others are one line


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devtools.package", description=__doc__)
    parser.add_argument("what", choices=("folder", "image"))
    parser.add_argument(
        "--output", type=Path, default=ROOT / "dist", help="the folder that gets qwen-asr/ and qwen-asr.tar"
    )
    arguments = parse_arguments(parser, argv)
    folder, image = arguments.output / NAME, arguments.output / f"{NAME}.tar"
    try:
        if arguments.what == "folder":
            print(_table(make_folder(ROOT, folder)))
            print(folder)
        else:
            write_image(folder, image, f"{NAME}:{version_of(ROOT)}")
            print(f"{image}, {image.stat().st_size / 1e6:.0f} MB")
    except (NotBuilt, NotInstalled) as error:
        print(f"package: {error}", file=sys.stderr)
        return 1
    return 0


def _table(sizes: dict[str, int]) -> str:
    largest = sorted(sizes, key=lambda name: -sizes[name])
    rows = [(name, sizes[name]) for name in largest[:_SHOWN]]
    rows.append((f"{len(largest) - _SHOWN} others", sum(sizes[name] for name in largest[_SHOWN:])))
    rows.append(("together", sum(sizes.values())))
    return aligned([("part", "MB"), *((name, f"{size / 1e6:.0f}") for name, size in rows)])


if __name__ == "__main__":
    raise SystemExit(main())
