"""What the command line tells of an answer's quotes, whoever gave it: JSON objects, and lines about what was misread."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from glyph_rt.quotes import Quote, QuoteKind
from glyph_rt.v1 import answers_pb2

if TYPE_CHECKING:
    from glyph_rt.typeset import Layout

SIDES = ("left", "top", "right", "bottom")


def quote_figures(quotes: Iterable[Quote], layout: Layout) -> list[dict[str, Any]]:
    """Of the runtime's quotes, in a document laid out like this."""
    figures = [quote.to_json(layout.text) for quote in quotes]
    for place in (place for figure in figures for place in figure["places"]):
        lines = layout.find_all(place["start"], place["end"])
        place["boxes"] = [{"page": line.page, **{side: getattr(line.box, side) for side in SIDES}} for line in lines]
    return figures


def citation_figures(citations: Iterable[answers_pb2.Citation], said: str, text: str) -> list[dict[str, Any]]:
    """The same of a server's citations, of an answer in the model's own words about `text`: one by one they are places of quotes."""
    found = []
    for (start, end, kind), places in groupby(citations, lambda c: (c.answer_start, c.answer_end, c.kind)):
        told = [
            {
                "start": c.start,
                "end": c.end,
                "text": text[c.start : c.end],
                "boxes": [{name: getattr(box, name) for name in ("page", *SIDES)} for box in c.boxes],
            }
            for c in places
        ]
        name = answers_pb2.CitationKind.Name(kind).removeprefix("CITATION_KIND_").lower()
        found.append({"kind": name, "start": start, "end": end, "said": said[start:end], "places": told})
    return found


def print_changes(figures: Sequence[dict[str, Any]]) -> None:
    """On standard error, a line for every quote that the model misread, and for every one that may be misread and was left as it is."""
    for quote in figures:
        told = [f"{place['text']!r} ({_where(place)})" for place in quote["places"]]
        if quote["kind"] == QuoteKind.MISREAD:
            print(f"misread: the model wrote {quote['said']!r}, the document says {told[0]}", file=sys.stderr)
        elif quote["kind"] == QuoteKind.AMBIGUOUS:
            print(f"left as it is: the model wrote {quote['said']!r}, the document says {' and '.join(told)}", file=sys.stderr)


def _where(place: dict[str, Any]) -> str:
    characters = f"characters {place['start']} to {place['end']}"
    return f"page {place['boxes'][0]['page']}, {characters}" if place["boxes"] else characters
