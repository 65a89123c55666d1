"""Where fonts are: shipped with glyph-rt, or installed on this box."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from glyph_rt.errors import StyleError

SHIPPED = Path(__file__).parent / "fonts"
# What stands in for a font that may not be shipped, in order of preference. The reference configuration names Verdana and
# Source Han Sans; whoever has them gets them.
SUBSTITUTES = {
    "verdana.ttf": ("DejaVuSans.ttf",),
    "sourcehansanshwsc-vf.ttf": (
        "SourceHanSansSC-Regular.otf",
        "NotoSansCJK-Regular.ttc",
        "NotoSansSC-Regular.ttf",
        "wqy-microhei.ttc",
        "wqy-zenhei.ttc",
        "msyh.ttc",
        "DroidSansFallbackFull.ttf",
        "DroidSansFallback.ttf",
        "DejaVuSans.ttf",
    ),
}


def find_font(font_path: str) -> Path:
    """The font file that `font_path` names on this box: an absolute path, or the name of a font that is shipped or installed; else the
    first substitute known for that name. Raises StyleError when there is none.
    """
    path = Path(font_path)
    if path.is_absolute() and path.is_file():
        return path
    installed = _installed()
    for name in (path.name, *SUBSTITUTES.get(path.name.lower(), ())):
        if name.lower() in installed:
            return installed[name.lower()]
    shipped = ", ".join(sorted(p.name for p in SHIPPED.glob("*.ttf")))
    raise StyleError(f"no font {font_path!r} on this box; give an absolute path, the file name of an installed font, or one of: {shipped}")


@cache
def _installed() -> dict[str, Path]:
    """File name in lower case to path; what ships with glyph-rt wins, so that pages do not depend on the box needlessly."""
    home = Path.home()
    folders = [home / ".fonts", home / ".local/share/fonts", Path("/usr/local/share/fonts"), Path("/usr/share/fonts")]
    if sys.platform == "darwin":
        folders = [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    elif sys.platform == "win32":
        folders = [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts"]
    found: dict[str, Path] = {}
    for folder in (SHIPPED, *folders):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.suffix.lower() in (".ttf", ".otf", ".ttc"):
                found.setdefault(path.name.lower(), path)
    return found
