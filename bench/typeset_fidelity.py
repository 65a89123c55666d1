"""Our pages beside the reference chain's, of the same text in the same font: line breaks and pixels, as the encoder gets them.

The chain's pages go through the model's image processor first (to multiples of 28 px, bicubic; checked against transformers), since a page
of ours is the encoder's input as it stands. Where sizes or page counts differ, the smaller page is laid on white paper and the rest of the
pages is only counted.

    python bench/typeset_fidelity.py [--characters 30000] [--kinds prose ...] [--dpi 72] [--keys] [--out bench/results/typeset_fidelity]

Writes fidelity.json and, per kind, page 1 of both and eight times their difference side by side. Goal: at most 0.1 of 255 levels per page.
--keys compares, instead, pages drawn with other values of the reference's keys, and writes keys.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import reference_chain
import texts
from numpy.typing import NDArray
from PIL import Image

from glyph_rt.typeset import PRESETS, Style, Typesetter

FONTS = Path(__file__).resolve().parents[1] / "glyph_rt/typeset/fonts"
CJK_FONTS = (
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",  # Debian's fonts-droid-fallback
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/arphic/uming.ttc",
)
KINDS = ("prose", "hard-wrapped", "one-line", "chinese")
GOAL = 0.1  # of 255, mean absolute difference of a page
PICTURE_BYTES = 150_000
AMPLIFY = 8
KEYS: dict[str, dict[str, object]] = {  # other values than those of the reference's own files
    "alignment CENTER": {"alignment": "CENTER"},
    "alignment RIGHT": {"alignment": "RIGHT"},
    "alignment JUSTIFY": {"alignment": "JUSTIFY"},
    "indents": {"first-line-indent": 20, "left-indent": 10, "right-indent": 15},
    "spaces around paragraphs": {"space-before": 4, "space-after": 6},
    "light on dark": {"page-bg-color": "#101010", "para-bg-color": "#101010", "font-color": "#F0F0F0"},
    "newline marks": {"newline-markup": '<font color="#FF0000"> \\n </font>'},
    "horizontal-scale 0.8": {"horizontal-scale": 0.8},
    "paragraphs on grey": {"para-bg-color": "#EEEEEE"},
    "paragraphs in a border": {"border-width": 1, "border-padding": 2, "para-border-color": "#000000"},
}

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Comparison:
    """One kind of text. Differences are in levels of 255, after the image processor, over the pages both sides have."""

    kind: str
    characters: int
    chain_pages: int
    our_pages: int
    lines_equal: int  # lines with anything on them, page by page from the top, compared without their spaces
    lines: int
    sizes_equal: int  # pages of the same width and height
    down_first: int  # pages that this box's Pillow would resample in the other order (reference_chain.preprocess)
    mean: float
    worst_page: float
    over_1: float  # share of pixels that differ by more than 1 level
    over_8: float

    def __str__(self) -> str:
        verdict = "reached" if self.worst_page <= GOAL and self.chain_pages == self.our_pages else "not reached"
        return (
            f"{self.kind:12} {self.characters:7,} characters, pages {self.chain_pages} (chain) {self.our_pages} (ours), "
            f"{self.sizes_equal} of equal size; lines equal {self.lines_equal}/{self.lines}; "
            f"mean difference {self.mean:.4f}, worst page {self.worst_page:.4f} (goal {GOAL}: {verdict}); "
            f"pixels off by more than 1 level {100 * self.over_1:.3f} %, by more than 8 {100 * self.over_8:.3f} %"
            + (f"; Pillow here would resample {self.down_first} pages down first" if self.down_first else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=30_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--dpi", type=int, default=72, help="other than the 72 of the presets")
    parser.add_argument("--keys", action="store_true", help="other values of the reference's keys, instead of kinds of text")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/typeset_fidelity")
    options = parser.parse_args()
    reason = reference_chain.missing()
    if reason:
        print(f"not measured here: {reason}")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if options.keys:
        record = {name: look(name, changes, options.characters) for name, changes in KEYS.items()}
        (options.out / "keys.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return
    found: list[Comparison] = []
    skipped: dict[str, str] = {}
    for kind in options.kinds:
        font = font_for(kind)
        if font is None:
            skipped[kind] = "no CJK font on this box"
            print(f"{kind:12} not measured here: {skipped[kind]}")
            continue
        comparison, picture = compare(kind, texts.KINDS[kind](options.characters, 0), font, options.dpi)
        suffix = "" if options.dpi == 72 else f"-{options.dpi}"
        (options.out / f"{kind}{suffix}.png").write_bytes(picture)
        found.append(comparison)
        print(comparison)
    record = {"dpi": options.dpi, "goal": GOAL, "kinds": [dataclasses.asdict(c) for c in found], "not_measured": skipped}
    name = "fidelity.json" if options.dpi == 72 else f"fidelity-{options.dpi}.json"
    (options.out / name).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def look(name: str, changes: dict[str, object], characters: int) -> dict[str, list[float]]:
    """The difference of every page drawn with `changes` to the reference's keys, by kind of text; prints them too."""
    keys = reference_chain.CONFIG_EN | {"font-path": str(FONTS / "DejaVuSans.ttf")} | changes
    style = Style.from_json(keys, name)
    differences: dict[str, list[float]] = {}
    for kind in ("prose", "hard-wrapped"):
        text = texts.KINDS[kind](characters, 0)
        chain = reference_chain.render(text, keys, png=False)
        pairs = zip(map(reference_chain.preprocess, chain.pages), Typesetter(style).pages(text), strict=True)
        both = (on_same_paper(theirs, page.pixels()) for theirs, page in pairs)
        differences[kind] = [round(float(np.abs(wanted.astype(np.int16) - drawn).mean()), 4) for wanted, drawn in both]
        found = differences[kind]
        over = f"{sum(difference > GOAL for difference in found)} of {len(found)} over {GOAL}"
        print(f"{name:26} {kind:12} median {np.median(found):.3f}, worst page {max(found):.3f}, {over}")
    return differences


def font_for(kind: str) -> Path | None:
    """A font that both sides draw with; None when the box has none for this kind of text."""
    candidates = map(Path, CJK_FONTS) if kind == "chinese" else (FONTS / "DejaVuSans.ttf",)
    return next((path for path in candidates if path.is_file()), None)


def style_for(kind: str, font: Path, dpi: int = 72) -> Style:
    """Our preset for the layout that the chain's CONFIG_EN describes, in `font`."""
    name = "glyph-zh-72" if kind == "chinese" else "glyph-en-72"
    return dataclasses.replace(PRESETS[name], name=f"{name} in {font.stem}", font_path=str(font), dpi=dpi)


def compare(kind: str, text: str, font: Path, dpi: int) -> tuple[Comparison, bytes]:
    """Draw `text` on both sides; the figures, and a PNG of both first pages."""
    chain = reference_chain.render(text, reference_chain.CONFIG_EN | {"font-path": str(font), "dpi": dpi}, png=False)
    ours = list(Typesetter(style_for(kind, font, dpi)).pages(text))
    means, over_1, over_8, lines_equal, sizes_equal, down_first = [], [], [], 0, 0, 0
    picture = b""
    for theirs, page, rows in zip(chain.pages, ours, chain.rows, strict=False):
        wanted, drawn = reference_chain.preprocess(theirs), page.pixels()
        down_first += theirs.ndim == 2 and reference_chain.processor_goes_down_first(theirs)
        sizes_equal += wanted.shape[:2] == drawn.shape[:2]
        wanted, drawn = on_same_paper(wanted, drawn)
        difference = np.abs(wanted.astype(np.int16) - drawn)
        means.append(float(difference.mean()))
        over_1.append(float((difference > 1).mean()))
        over_8.append(float((difference > 8).mean()))
        our_lines = (text[start:stop] for start, stop in page.lines.tolist())
        lines_equal += sum(a == b for a, b in zip(ink_of(rows), ink_of(our_lines), strict=False))
        picture = picture or side_by_side(wanted, drawn, difference)
    comparison = Comparison(
        kind=kind,
        characters=len(text),
        chain_pages=len(chain.pages),
        our_pages=len(ours),
        lines_equal=lines_equal,
        lines=sum(len(ink_of(rows)) for rows in chain.rows),
        sizes_equal=sizes_equal,
        down_first=down_first,
        mean=float(np.mean(means)),
        worst_page=max(means),
        over_1=float(np.mean(over_1)),
        over_8=float(np.mean(over_8)),
    )
    return comparison, picture


def ink_of(lines: object) -> list[str]:
    """Lines that show something, without their spaces: the chain moves, drops and adds those."""
    bare = ("".join(line.replace("\u00ad", "").replace("\u200b", "").split()) for line in lines)  # type: ignore[attr-defined]
    return [line for line in bare if line]


def on_same_paper(a: Grey, b: Grey) -> tuple[Grey, Grey]:
    """Both pages in one size, white where they end, and as RGB if either is."""
    height, width = (max(a.shape[i], b.shape[i]) for i in (0, 1))
    colour = max(a.ndim, b.ndim) == 3

    def lay(page: Grey) -> Grey:
        if colour and page.ndim == 2:
            page = np.repeat(page[..., None], 3, 2)
        paper = np.full((height, width, *page.shape[2:]), 255, np.uint8)
        paper[: page.shape[0], : page.shape[1]] = page
        return paper

    return lay(a), lay(b)


def side_by_side(wanted: Grey, drawn: Grey, difference: NDArray[np.int16]) -> bytes:
    """PNG of chain | ours | amplified difference (white: equal); as much of the page's top as the size allows."""
    rule = np.full((len(wanted), 4, *wanted.shape[2:]), 128, np.uint8)
    amplified = (255 - np.minimum(AMPLIFY * difference, 255)).astype(np.uint8)
    image = Image.fromarray(np.concatenate([wanted, rule, drawn, rule, amplified], 1)).convert("L")
    rows = image.height
    while True:
        buffer = io.BytesIO()
        image.crop((0, 0, image.width, rows)).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= PICTURE_BYTES:
            return buffer.getvalue()
        rows = math.floor(rows * 0.95 * PICTURE_BYTES / buffer.tell())


if __name__ == "__main__":
    main()
