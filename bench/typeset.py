"""How fast text becomes pages, beside the reference chain, Pillow and Pango on the same texts in the same process.

Rounds alternate between the sides and each draws a text that no round before it drew, so no cache can help and a noisy machine hits all
sides alike; ratios are paired within rounds. Pillow and Pango draw the lines that we broke, so they do less work than the others.

    python bench/typeset.py [--characters 100000] [--rounds 5] [--kinds prose ...] [--quick] [--full] [--json FILE]

The second part draws ever longer texts, each in a process of its own: cost per character and peak memory. --full goes up to 100 MB.
Goals on one core: 200 times the chain on prose, 10 times Pango, 2,000 pages/s; 1.8 times that on two threads; a flat cost per character.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import reference_chain
import texts
from PIL import Image, ImageDraw, ImageFont
from typeset_fidelity import FONTS, font_for, style_for

from glyph_rt.memory.limits import peak_rss_bytes
from glyph_rt.typeset import Style, Typesetter

PAGE = (595, 842)  # px of a page that Pillow and Pango draw
LEFT, BASELINE, LEADING, SIZE = 16, 25, 10, 9  # px at 72 dpi: the layout of glyph-en-72
GOALS = {"chain": "200 on prose", "pango": "10", "ours-2": "1 / 1.8 = 0.56", "pages/s": "2,000"}

Pages = list[list[str]]  # the lines of every page


@dataclass(frozen=True)
class Sample:
    """One side's time on one text."""

    seconds: float
    pages: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=100_000, help="of each text of the first part")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=tuple(texts.KINDS), default=tuple(texts.KINDS))
    parser.add_argument("--quick", action="store_true", help="small texts, two rounds: only to see that it runs")
    parser.add_argument("--full", action="store_true", help="grow to 100 MB instead of 10 MB")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("SIDE", "KIND", "CHARACTERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        side, kind, characters = options.one
        print(json.dumps(grown(side, kind, int(characters))))
        return
    characters, rounds = (20_000, 2) if options.quick else (options.characters, options.rounds)
    record: dict[str, Any] = {"characters": characters, "rounds": rounds, "goals": GOALS, "kinds": {}}
    for kind in options.kinds:
        record["kinds"][kind] = race(kind, characters, rounds)
    record["growth"] = growth(options.quick, options.full)
    print(f"peak memory of this process: {peak_rss_bytes() / 2**20:.0f} MiB")
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


# -- the race


def race(kind: str, characters: int, rounds: int) -> dict[str, Any]:
    """Every side on `rounds` texts of one kind; prints and returns the figures."""
    font = font_for(kind) or FONTS / "DejaVuSans.ttf"
    style = style_for(kind, font)
    started = time.perf_counter()
    scribe = Typesetter(style)  # breaks the lines for the others; the sides that are timed never see a text before their turn
    opened = time.perf_counter() - started
    sides, absent = contenders(style, font)
    samples: dict[str, list[Sample]] = {}
    sizes: list[int] = []
    for number in range(rounds + 1):  # the first round warms all sides up and is not counted
        text = texts.KINDS[kind](characters, number)
        lines, patch_bytes = lines_of(scribe, text)
        sides["copy"] = copier(patch_bytes, len(lines))
        order = sorted(sides)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            start = time.perf_counter()
            pages, left_out = sides[name](text, lines)
            seconds = time.perf_counter() - start
            if number:
                samples.setdefault(name, []).append(Sample(seconds, pages))
                if name == "chain":
                    samples.setdefault("chain-no-png", []).append(Sample(seconds - left_out, pages))
        if number:
            sizes.append(len(text))
    print(f"\n{kind}: {characters:,} characters, {rounds} rounds, font {font.name}; typesetter opened in {1e3 * opened:.1f} ms")
    figures = {name: figures_of(samples[name], samples["ours"], sizes) for name in samples}
    for name, figure in figures.items():
        print(described(name, figure, kind))
    for name, reason in absent.items():
        print(f"  {name:12} not measured here: {reason}")
    return {"font": font.name, "opened_s": opened, "sides": figures, "not_measured": absent}


def figures_of(mine: list[Sample], ours: list[Sample], sizes: list[int]) -> dict[str, float]:
    """Medians over rounds, and how many times our time this side takes, pair by pair."""
    ratios = sorted(a.seconds / b.seconds for a, b in zip(mine, ours, strict=True))
    return {
        "seconds": statistics.median(s.seconds for s in mine),
        "pages_per_s": statistics.median(s.pages / s.seconds for s in mine),
        "characters_per_s": statistics.median(n / s.seconds for n, s in zip(sizes, mine, strict=True)),
        "ratio": statistics.median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
    }


def described(name: str, figure: dict[str, float], kind: str) -> str:
    speed = f"  {name:12} {figure['pages_per_s']:10,.0f} pages/s {figure['characters_per_s'] / 1e6:10.2f} M characters/s  "
    if name == "ours":
        return speed + f"goal {GOALS['pages/s']} pages/s"
    goal = f", goal {GOALS[name]}" if name in GOALS and (name != "chain" or kind == "prose") else ""
    return speed + f"{figure['ratio']:8.2f} ({figure['ratio_min']:.2f} to {figure['ratio_max']:.2f}) times our time{goal}"


Side = Callable[[str, Pages], tuple[int, float]]  # draws a text or the lines of its pages; pages drawn, seconds not to count


def contenders(style: Style, font: Path) -> tuple[dict[str, Side], dict[str, str]]:
    """What can run here by name, and why the rest cannot."""
    ours, native = Typesetter(style), Typesetter(style.changed("native", fit="native"))  # as trained; and drawn sharp, without resampling
    sides: dict[str, Side] = {
        "ours": lambda text, _: (draw(ours, text, 1), 0.0),
        "ours-2": lambda text, _: (draw(ours, text, 2), 0.0),
        "native": lambda text, _: (draw(native, text, 1), 0.0),
        "native-2": lambda text, _: (draw(native, text, 2), 0.0),
        "pillow": pillow(font),
    }
    absent: dict[str, str] = {}
    reason = reference_chain.missing()
    if reason:
        absent["chain"] = reason
    else:
        config = reference_chain.CONFIG_EN | {"font-path": str(font)}

        def chain(text: str, _: Pages) -> tuple[int, float]:
            rendered = reference_chain.render(text, config)
            return len(rendered.pages), rendered.seconds["png"]

        sides["chain"] = chain
    try:
        sides["pango"] = Pango(font).draw
    except OSError as error:
        absent["pango"] = f"no Pango ({error})"
    return sides, absent


def draw(typesetter: Typesetter, text: str, threads: int) -> int:
    """Draw all pages, keep none; how many there were."""
    return sum(1 for _ in typesetter.pages(text, threads=threads))


def lines_of(typesetter: Typesetter, text: str) -> tuple[Pages, int]:
    """The lines we broke `text` into, by page, and the bytes of all pages."""
    lines: Pages = []
    size = 0
    for page in typesetter.pages(text):
        lines.append([text[start:stop].strip("\n") for start, stop in page.lines.tolist()])
        size += page.patches.nbytes
    return lines, size


def copier(size: int, pages: int) -> Side:
    """The bound: moving as many bytes as the pages have, once, and nothing else."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)

    def copy(_text: str, _lines: Pages) -> tuple[int, float]:
        np.copyto(target, source)
        return pages, 0.0

    return copy


def pillow(font_file: Path) -> Side:
    """Pillow line by line into grey pages."""
    font = ImageFont.truetype(str(font_file), SIZE, layout_engine=ImageFont.Layout.BASIC)

    def draw_lines(_text: str, pages: Pages) -> tuple[int, float]:
        for lines in pages:
            canvas = ImageDraw.Draw(Image.new("L", PAGE, 255))
            for row, line in enumerate(lines):
                canvas.text((LEFT, BASELINE + row * LEADING), line, fill=0, font=font, anchor="ls")
        return len(pages), 0.0

    return draw_lines


class Pango:
    """Pango and Cairo line by line into 8-bit alpha pages, over their C libraries. Raises OSError where they are not installed."""

    def __init__(self, font_file: Path) -> None:
        self._pango, self._layouts, self._cairo = library("pango-1.0"), library("pangocairo-1.0"), library("cairo")
        # The font may not be installed: fontconfig is shown the file, and Pango then finds it by its family.
        library("fontconfig").FcConfigAppFontAddFile(None, str(font_file).encode())
        pointer, number = ctypes.c_void_p, ctypes.c_int
        for owner, name, result, arguments in (
            (self._cairo, "cairo_image_surface_create", pointer, (number, number, number)),
            (self._cairo, "cairo_create", pointer, (pointer,)),
            (self._cairo, "cairo_destroy", None, (pointer,)),
            (self._cairo, "cairo_surface_destroy", None, (pointer,)),
            (self._cairo, "cairo_surface_flush", None, (pointer,)),
            (self._cairo, "cairo_move_to", None, (pointer, ctypes.c_double, ctypes.c_double)),
            (self._cairo, "cairo_font_options_create", pointer, ()),
            (self._cairo, "cairo_font_options_set_antialias", None, (pointer, number)),
            (self._cairo, "cairo_font_options_set_hint_style", None, (pointer, number)),
            (self._cairo, "cairo_font_options_set_hint_metrics", None, (pointer, number)),
            (self._layouts, "pango_cairo_create_layout", pointer, (pointer,)),
            (self._layouts, "pango_cairo_show_layout_line", None, (pointer, pointer)),
            (self._layouts, "pango_cairo_context_set_font_options", None, (pointer, pointer)),
            (self._pango, "pango_layout_get_context", pointer, (pointer,)),
            (self._pango, "pango_layout_set_text", None, (pointer, ctypes.c_char_p, number)),
            (self._pango, "pango_layout_set_font_description", None, (pointer, pointer)),
            (self._pango, "pango_layout_get_line_readonly", pointer, (pointer, number)),
            (self._pango, "pango_font_description_from_string", pointer, (ctypes.c_char_p,)),
            (self._pango, "pango_font_description_set_absolute_size", None, (pointer, ctypes.c_double)),
        ):
            function = getattr(owner, name)
            function.restype, function.argtypes = result, arguments
        family = ImageFont.truetype(str(font_file), SIZE).getname()[0] or "Sans"
        description = self._pango.pango_font_description_from_string(family.encode())
        self._pango.pango_font_description_set_absolute_size(description, SIZE * 1024.0)
        options = self._cairo.cairo_font_options_create()
        self._cairo.cairo_font_options_set_antialias(options, 2)  # grey
        self._cairo.cairo_font_options_set_hint_style(options, 1)  # none, as the chain draws
        self._cairo.cairo_font_options_set_hint_metrics(options, 1)  # off
        self._scratch = self._page()
        self._layout = self._layouts.pango_cairo_create_layout(self._scratch[1])
        self._layouts.pango_cairo_context_set_font_options(self._pango.pango_layout_get_context(self._layout), options)
        self._pango.pango_layout_set_font_description(self._layout, description)

    def _page(self) -> tuple[int, int]:
        surface = self._cairo.cairo_image_surface_create(2, *PAGE)  # 2: CAIRO_FORMAT_A8
        return surface, self._cairo.cairo_create(surface)

    def draw(self, _text: str, pages: Pages) -> tuple[int, float]:
        set_text, get_line = self._pango.pango_layout_set_text, self._pango.pango_layout_get_line_readonly
        move, show, layout = self._cairo.cairo_move_to, self._layouts.pango_cairo_show_layout_line, self._layout
        for lines in pages:
            surface, canvas = self._page()
            for row, line in enumerate(lines):
                set_text(layout, line.encode(), -1)
                move(canvas, LEFT, BASELINE + row * LEADING)
                show(canvas, get_line(layout, 0))
            self._cairo.cairo_surface_flush(surface)
            self._cairo.cairo_destroy(canvas)
            self._cairo.cairo_surface_destroy(surface)
        return len(pages), 0.0


def library(name: str) -> ctypes.CDLL:
    found = ctypes.util.find_library(name)
    if found is None:
        raise OSError(f"lib{name} is not installed")
    return ctypes.CDLL(found)


# -- growth


def growth(quick: bool, full: bool) -> list[dict[str, Any]]:
    """Cost per character by length of the text."""
    sizes = [10_000, 100_000] if quick else [10_000, 100_000, 1_000_000, 10_000_000] + [100_000_000] * full
    runs = [("ours", kind, size) for kind in ("prose", "one-line") for size in sizes]
    if reference_chain.missing() is None:
        runs += [("chain-no-png", "one-line", size) for size in ([25_000, 50_000] if quick else [25_000, 50_000, 100_000, 200_000])]
    print("\ncost by length (each in a process of its own)")
    found = []
    for side, kind, size in runs:
        command = [sys.executable, __file__, "--one", side, kind, str(size)]
        figure = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found.append(figure)
        print(
            f"  {side:12} {kind:9} {size:12,} characters: {1e9 * figure['seconds'] / size:10,.1f} ns per character, "
            f"{figure['pages'] / figure['seconds']:8,.0f} pages/s, {figure['memory_bytes'] / 2**20:8.1f} MiB beyond the text, "
            f"{figure['peak_bytes'] / 2**20:.0f} MiB in all"
        )
    return found


def grown(side: str, kind: str, characters: int) -> dict[str, Any]:
    """Time and memory of one text in this process, streaming."""
    font = font_for(kind) or FONTS / "DejaVuSans.ttf"
    typesetter = Typesetter(style_for(kind, font))
    config = reference_chain.CONFIG_EN | {"font-path": str(font)}

    def once(text: str) -> Sample:
        start = time.perf_counter()
        if side == "ours":
            pages = draw(typesetter, text, 1)
            return Sample(time.perf_counter() - start, pages)
        rendered = reference_chain.render(text, config, png=False)
        return Sample(sum(rendered.seconds.values()), len(rendered.pages))

    make = texts.KINDS[kind]
    once(make(10_000, 1))
    text = make(characters, 0)
    before = forget_peak()
    best = once(text)
    peak = peak_rss_bytes_now()  # without pdftoppm, which is a process of its own
    spent, seed = best.seconds, 1
    while spent < 0.3:  # short texts: the least of several, each new to the typesetter
        seed += 1
        again = once(make(characters, seed))
        spent += again.seconds
        best = min(best, again, key=lambda sample: sample.seconds / sample.pages)
    figures = {"seconds": best.seconds, "pages": best.pages, "memory_bytes": max(0, peak - before), "peak_bytes": peak}
    return {"side": side, "kind": kind, "characters": characters} | figures


def forget_peak() -> int:
    """Start measuring the peak afresh where the system can (Linux); the bytes held now, or at most so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return peak_rss_bytes()
    return _status("VmRSS")


def peak_rss_bytes_now() -> int:
    return _status("VmHWM") if Path("/proc/self/status").is_file() else peak_rss_bytes()


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


if __name__ == "__main__":
    main()
