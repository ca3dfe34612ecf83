"""Print the copyright file of the package: ``copyright.py LICENSE SITE-PACKAGES``.

The file names the licence of this project, and that of each library in the virtual environment;
the text of the latter is in the library's own directory there.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

OURS = ("bucketd", "bucketd-client")


def main(licence: Path, site: Path) -> None:
    print("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/")
    print("Upstream-Name: bucketd\n")
    title, copyright_, text = licence.read_text().split("\n\n", 2)
    holder = copyright_.removeprefix("Copyright (c) ")
    print(f"Files: *\nCopyright: {holder}\nLicense: {title.removesuffix(' License')}")
    for line in text.rstrip().splitlines():
        print(f" {line or '.'}")
    for library in sorted(distributions(path=[str(site)]), key=lambda d: d.name.lower()):
        if library.name not in OURS:
            print("\n" + _about(library, site))


def _about(library: Distribution, site: Path) -> str:
    """Return the paragraph of a library: the name of its licence, and where the text is."""
    top = sorted({str(path).partition("/")[0] for path in library.files or ()})
    names = [name for name in top if name and not name.startswith((".", "__pycache__"))]
    home = f"usr/lib/bucketd/lib/{site.parent.name}/site-packages"
    files = "\n ".join(f"{home}/{name}*" for name in names)
    about = library.metadata
    name = about.get("License-Expression") or about.get("License") or _classified(library)
    holder = about.get("Author") or about.get("Author-email") or f"the authors of {library.name}"
    return (
        f"Files: {files}\nCopyright: {holder}\nLicense: {name.splitlines()[0]}\n"
        f" See *.dist-info of {library.name} {library.version} beside these files."
    )


def _classified(library: Distribution) -> str:
    found = library.metadata.get_all("Classifier") or []
    names = [c.rpartition(" :: ")[2] for c in found if c.startswith("License ::")]
    return ", ".join(names) or "not stated"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
