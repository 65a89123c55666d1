"""The chain the Glyph models were trained on, rebuilt from its described behaviour: reportlab -> PDF -> poppler -> crop -> PNG.

thu-coai/Glyph has no licence, so nothing here is taken from it: shared/facts/glyph-renderer.md says what it does, this does the same. Needs
`reportlab`, `pdf2image` and poppler's `pdftoppm`; `missing()` says which of them a box lacks.

    python bench/reference_chain.py FILE OUT_DIR [--font PATH] [--dpi 72]     # the chain's pages as PNG, and its times
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.util
import io
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Config = Mapping[str, Any]  # the reference's keys, e.g. {"font-path": ..., "dpi": 72}

# What the reference uses for a key that its configuration file leaves out.
CODE_DEFAULTS: dict[str, Any] = {
    "page-size": "595.2755905511812,841.8897637795277",  # A4 in pt, as reportlab has it
    "dpi": 72,
    "margin-x": 20,
    "margin-y": 20,
    "font-size": 9,
    "line-height": None,  # font-size + 1
    "font-color": "#000000",
    "alignment": "JUSTIFY",
    "horizontal-scale": 1.0,
    "first-line-indent": 0,
    "left-indent": 0,
    "right-indent": 0,
    "space-before": 0,
    "space-after": 0,
    "border-width": 0,
    "border-padding": 0,
    "page-bg-color": "#FFFFFF",
    "para-bg-color": "#FFFFFF",
    "para-border-color": "#FFFFFF",
    "auto-crop-width": False,
    "auto-crop-last-page": False,
    "newline-markup": "<br/>",
}
# Its config_en.json, less the font: Verdana is not ours to ship.
CONFIG_EN: dict[str, Any] = {
    "page-size": "595,842",
    "margin-x": 10,
    "margin-y": 10,
    "line-height": 10,
    "alignment": "LEFT",
    "auto-crop-width": True,
    "auto-crop-last-page": True,
}
LINES_PER_PARAGRAPH = 30
PAGES_PER_CALL = 20  # of one pdftoppm process
CROP_TOLERANCE = 5  # grey levels
BLOCK = 28  # px: patch 14 times merge 2


@dataclass(frozen=True)
class Rendered:
    """What the chain made of one text.

    pages: grey uint8 [height, width] where the page has no colour, else RGB uint8 [height, width, 3].
    rows: per page, the text of every row from the top; a row with nothing on it is "". Runs of spaces are as drawn, nbsp as U+00A0.
    seconds: by phase, "layout" (reportlab, with writing the PDF), "raster" (pdftoppm and the pipe from it), "crop" and "png".
    """

    pages: list[NDArray[np.uint8]]
    rows: list[list[str]]
    seconds: dict[str, float]
    png_bytes: int


def missing() -> str | None:
    """Why the chain cannot run on this box; None when it can."""
    for package in ("reportlab", "pdf2image"):
        if importlib.util.find_spec(package) is None:
            return f"no {package} (pip install {package})"
    return None if shutil.which("pdftoppm") else "no pdftoppm (apt install poppler-utils)"


def reference_pages(text: str, config: Config) -> list[NDArray[np.uint8]]:
    """The chain's pages of `text`."""
    return render(text, config, png=False).pages


def render(text: str, config: Config, png: bool = True) -> Rendered:
    """Run the chain in memory. PNG files are made, as the reference does, but not written to a disk; `png=False` leaves them out."""
    settings = CODE_DEFAULTS | dict(config)
    clock = _Clock()
    pdf, rows = _layout(text, settings)
    clock.lap("layout")
    images = _rasterise(pdf, len(rows), settings)
    clock.lap("raster")
    images = [_crop(image, settings, last=i == len(images) - 1) for i, image in enumerate(images)]
    clock.lap("crop")
    png_bytes = sum(_png_size(image) for image in images) if png else 0
    clock.lap("png")
    return Rendered([_grey_if_grey(image) for image in images], rows, clock.seconds, png_bytes)


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._at = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase], self._at = now - self._at, now


@functools.cache
def _register(font_path: str) -> str:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    name = f"{Path(font_path).stem}-{hashlib.sha1(font_path.encode()).hexdigest()[:6]}"
    pdfmetrics.registerFont(TTFont(name, font_path))
    return name


def _markup(lines: list[str], newline: str) -> str:
    """One paragraph's mini-XML. The text is data; only `newline` is markup."""
    escaped = (line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in lines)
    return newline.join(re.sub(" {2,}", lambda run: "&nbsp;" * len(run[0]), line) for line in escaped)


@dataclass
class _Rows:
    """Collects the rows of a document while reportlab draws it."""

    pages: list[list[str]] = field(default_factory=list)

    def add(self, page: int, lines: list[Any]) -> None:
        while len(self.pages) < page:
            self.pages.append([])
        for line in lines:
            # A line is (unused width, words) in a paragraph of one fragment, else an object with its styled fragments.
            text = " ".join(line[1]) if isinstance(line, (tuple, list)) else "".join(getattr(f, "text", "") for f in line.words)
            self.pages[page - 1].append(text)


def _layout(text: str, settings: Config) -> tuple[bytes, list[list[str]]]:
    from reportlab.lib.colors import HexColor
    from reportlab.lib.enums import TA_CENTER, TA_JUSTIFY, TA_LEFT, TA_RIGHT
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Paragraph, SimpleDocTemplate

    rows = _Rows()

    class Recorded(Paragraph):  # type: ignore[misc]
        """A Paragraph that notes what it draws. Its pieces after a page break are of this class too."""

        def drawPara(self, debug: int = 0) -> None:
            rows.add(self.canv.getPageNumber(), self.blPara.lines)
            super().drawPara(debug)

    text = text.replace("\u00ad", "").replace("\u200b", "")
    width, height = (float(side) for side in settings["page-size"].split(","))
    font_size = settings["font-size"]
    style = ParagraphStyle(
        "text",
        fontName=_register(str(settings["font-path"])),
        fontSize=font_size,
        leading=settings["line-height"] or font_size + 1,
        textColor=HexColor(settings["font-color"]),
        backColor=HexColor(settings["para-bg-color"]),
        borderColor=HexColor(settings["para-border-color"]),
        borderWidth=settings["border-width"],
        borderPadding=settings["border-padding"],
        firstLineIndent=settings["first-line-indent"],
        leftIndent=settings["left-indent"],
        rightIndent=settings["right-indent"],
        spaceBefore=settings["space-before"],
        spaceAfter=settings["space-after"],
        alignment={"LEFT": TA_LEFT, "CENTER": TA_CENTER, "RIGHT": TA_RIGHT}.get(settings["alignment"], TA_JUSTIFY),
        wordWrap="CJK" if re.search("[\u4e00-\u9fff]", text) else None,
    )
    lines = text.split("\n")
    batches = (lines[i : i + LINES_PER_PARAGRAPH] for i in range(0, len(lines), LINES_PER_PARAGRAPH))
    story = [Recorded(_markup(batch, settings["newline-markup"]), style) for batch in batches]

    def background(canvas: Any, _document: Any) -> None:
        canvas.saveState()
        canvas.setFillColor(HexColor(settings["page-bg-color"]))
        canvas.rect(0, 0, width, height, stroke=0, fill=1)
        canvas.restoreState()

    buffer = io.BytesIO()
    x, y = settings["margin-x"], settings["margin-y"]
    document = SimpleDocTemplate(buffer, pagesize=(width, height), leftMargin=x, rightMargin=x, topMargin=y, bottomMargin=y)
    document.build(story, onFirstPage=background, onLaterPages=background)
    rows.add(document.page, [])  # a last page that holds no row is a page all the same
    return buffer.getvalue(), rows.pages


def _rasterise(pdf: bytes, pages: int, settings: Config) -> list[Image.Image]:
    from pdf2image import convert_from_bytes

    images: list[Image.Image] = []
    for first in range(1, pages + 1, PAGES_PER_CALL):
        last = min(first + PAGES_PER_CALL - 1, pages)
        images += convert_from_bytes(pdf, dpi=settings["dpi"], first_page=first, last_page=last)
    scale = settings["horizontal-scale"]
    return images if scale == 1.0 else [image.resize((int(image.width * scale), image.height)) for image in images]


def _crop(image: Image.Image, settings: Config, last: bool) -> Image.Image:
    """Cut paper at the right of every page and below the last one; the margins count as pixels here, whatever the dpi."""
    to_width, to_height = settings["auto-crop-width"], last and settings["auto-crop-last-page"]
    if not (to_width or to_height):
        return image
    grey = np.asarray(image.convert("L")).astype(np.int16)
    ink = np.abs(grey - np.median(grey[:2, :2])) > CROP_TOLERANCE
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if not len(rows):
        return image
    right = min(image.width, int(columns[-1] + 1 + settings["margin-x"])) if to_width else image.width
    bottom = min(image.height, int(rows[-1] + settings["margin-y"])) if to_height else image.height
    return image.crop((0, 0, right, bottom))


def _png_size(image: Image.Image) -> int:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")  # RGB at zlib level 6, as the reference has it
    return buffer.tell()


def _grey_if_grey(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    first = pixels[..., :1]
    return np.ascontiguousarray(first[..., 0]) if (pixels == first).all() else pixels


def preprocess(page: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the encoder is given of a page: both sides to the nearest multiple of 28 by Pillow's bicubic, as Glm4vImageProcessorPil does.

    Shapes as in `Rendered.pages`. Across first, then down, each rounded to 8 bits: so Pillow worked when the models were trained, and up to
    12.3. Pillow 13.0 goes down first where the height shrinks by more than twice the pixels that the width does: 0.2 levels per page.
    """
    return _resample(page, across_first=True)


def processor_goes_down_first(page: NDArray[np.uint8]) -> bool:
    """Whether transformers with this box's Pillow resamples a grey page in the other order than `preprocess`.

    Raises AssertionError when it gives the pixels of neither order.
    """
    from transformers import Glm4vImageProcessorPil

    processor = Glm4vImageProcessorPil(do_rescale=False, do_normalize=False)
    batch = processor(images=[Image.fromarray(page).convert("RGB")], return_tensors="np")
    _, rows, columns = batch["image_grid_thw"][0]
    patches = batch["pixel_values"].reshape(rows // 2, columns // 2, 2, 2, 3, 2, 14, 14)[..., 0, 0, :, :]
    theirs = patches.transpose(0, 2, 4, 1, 3, 5).reshape(rows * 14, columns * 14)
    if (theirs == preprocess(page)).all():
        return False
    assert (theirs == _resample(page, across_first=False)).all(), "preprocess() is not what transformers does"
    return True


def _resample(page: NDArray[np.uint8], across_first: bool) -> NDArray[np.uint8]:
    image = Image.fromarray(page)
    width, height = (max(1, round(side / BLOCK)) * BLOCK for side in image.size)
    for size in ((width, image.height) if across_first else (image.width, height), (width, height)):
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--font", default=str(Path(__file__).resolve().parents[1] / "glyph_rt/typeset/fonts/DejaVuSans.ttf"))
    parser.add_argument("--dpi", type=int, default=72)
    options = parser.parse_args()
    rendered = render(options.file.read_text(encoding="utf-8"), CONFIG_EN | {"font-path": options.font, "dpi": options.dpi})
    options.out.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(rendered.pages, 1):
        Image.fromarray(page).save(options.out / f"page_{number:03d}.png")
    print(
        f"{len(rendered.pages)} pages, {rendered.png_bytes} bytes of PNG;", ", ".join(f"{k} {v:.3f} s" for k, v in rendered.seconds.items())
    )


if __name__ == "__main__":
    main()
