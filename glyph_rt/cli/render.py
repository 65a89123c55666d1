"""`glyph-rt render`: the pages as PNG, for people."""

from __future__ import annotations

import sys
from pathlib import Path

from glyph_rt.cli.progress import page_progress
from glyph_rt.errors import InputError
from glyph_rt.memory.limits import parse_size
from glyph_rt.texts import read_text


def run(file: str, out: Path, model: Path | None, style: str | None, text_bytes: str) -> None:
    """Draw the pages; the text is read before anything heavy is imported."""
    text = read_text(file, parse_size(text_bytes))
    from PIL import Image

    from glyph_rt.checkpoint import Checkpoint
    from glyph_rt.documents import Progress
    from glyph_rt.language import PromptTemplate
    from glyph_rt.runtime import open_typesetter

    checkpoint = Checkpoint.open(model)
    typesetter = open_typesetter(checkpoint, style)
    layout = typesetter.layout(text)
    measure = layout.measure
    text_tokens = len(PromptTemplate(checkpoint).encode(text))
    print(
        f"{measure.pages} pages of at most {typesetter.style.width} x {typesetter.style.height} px, {measure.visual_tokens} visual tokens, "
        f"compression {text_tokens / measure.visual_tokens:.2f} ({text_tokens} text tokens, "
        f"{measure.characters / measure.visual_tokens:.2f} characters per visual token)",
        flush=True,
    )
    if measure.missing:
        names = ", ".join(f"U+{c:04X} ({n})" for c, n in sorted(measure.missing.items(), key=lambda item: -item[1])[:10])
        print(f"glyph-rt: the font lacks {len(measure.missing)} characters, drawn as boxes: {names}", file=sys.stderr)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with page_progress("drawing") as progress:
            for page in typesetter.draw(layout):
                Image.fromarray(page.pixels()).save(out / f"page-{page.number:04}.png")
                if progress is not None:
                    progress(Progress("draw", page.number, measure.pages))
    except OSError as error:
        raise InputError(f"pages cannot be written to {out} ({error.strerror}); choose another --out") from None
    fonts = ", ".join(font.name for font in typesetter.style.font_files)
    wanted = Path(typesetter.style.font_path).name
    print(f"drawn in {fonts}" + ("" if typesetter.style.font_files[0].name == wanted else f"; this box has no {wanted}"), file=sys.stderr)
    print(out)
