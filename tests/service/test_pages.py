"""What a client sees of a document: its pages as images, and where an answer stands on them."""

from __future__ import annotations

import io
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from glyph_rt import Runtime
from glyph_rt.checkpoint import EMBEDDED_READER
from glyph_rt.service.client import ServiceError
from glyph_rt.service.source import draw_from
from glyph_rt.typeset import PRESETS, Typesetter
from glyph_rt.v1 import documents_pb2
from tests.conftest import TEXT
from tests.service.conftest import Served, served

CONTRACT = (Path(__file__).parents[2] / "examples" / "contract.txt").read_text()


def test_pages_come_as_the_model_read_them(serve: Served) -> None:
    """Pixel by pixel what the typesetter draws; from any page on, as many as wanted."""
    text = "\n".join(f"line {i} of a text" for i in range(75))
    drawn = list(serve.runtime.typesetter.pages(text))
    with serve.client() as client:
        document = client.read(text)
        assert document.pages == len(drawn) == 8
        for first, count, expected in ((1, 0, range(1, 9)), (3, 2, range(3, 5)), (8, 100, range(8, 9)), (0, 1, range(1, 2))):
            found = list(client.pages(document.id, first, count))
            assert [page.page for page in found] == list(expected)
            for page in found:
                image = Image.open(io.BytesIO(page.png), formats=["PNG"])
                assert image.size == (page.width, page.height)
                assert np.array_equal(np.asarray(image), drawn[page.page - 1].pixels())
        with pytest.raises(ServiceError) as caught:
            list(client.pages(document.id, 9))
        assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, "first_page")
        assert serve.server.desk.streams.used == 0


def test_a_client_that_stops_looking_stops_the_drawing(serve: Served) -> None:
    with serve.client() as client:
        identity = client.read(TEXT).id
        call = client._documents.RenderPages(documents_pb2.RenderPagesRequest(id=identity))
        next(call)
        call.cancel()
        client.delete(identity)


def test_pages_far_into_a_long_text_are_the_ones_that_were_drawn() -> None:
    """Over several stretches of layout."""
    typesetter = Typesetter(PRESETS["glyph-en-72"])
    text = "".join(f"paragraph {i}: some words that fill a line of the page, and then a few more of them.\n" for i in range(4000))
    drawn = {page.number: page.digest for page in typesetter.pages(text)}
    layout = typesetter.layout(text)
    for first in (1, 2, len(drawn) // 2, len(drawn)):
        assert {page.number: page.digest for page in draw_from(typesetter, layout, first)} == {n: d for n, d in drawn.items() if n >= first}


def test_an_answer_is_found_where_the_text_says_it() -> None:
    """With the real reader: an answer's citation is where its value stands, of a kept document and of a text sent along."""
    with Runtime.open(EMBEDDED_READER, encoder="torch") as runtime, served(runtime) as at, at.client() as client:
        identity = client.read(CONTRACT).id
        for subject in ({"document": identity}, {"text": CONTRACT}):
            reply = client.ask("What is the value of Notice period?", **subject)  # type: ignore[arg-type]
            assert reply.text == "90 days" and reply.done is not None
            [citation] = reply.done.citations
            assert CONTRACT[citation.start : citation.end] == "90 days"
            place = runtime.typesetter.layout(CONTRACT).find(citation.start)
            [box] = citation.boxes
            assert place is not None and place.page == box.page
            assert (box.left, box.top, box.right, box.bottom) == (place.box.left, place.box.top, place.box.right, place.box.bottom)
            page = next(client.pages(identity, box.page, 1))
            ink = 255 - np.asarray(Image.open(io.BytesIO(page.png)))
            assert ink[box.top : box.bottom, box.left : box.right].any(), "there is something in the box"
        assert at.server.desk.uploads.used == 0


def test_drafting_may_be_declined(serve: Served) -> None:
    """The same answer, and nothing drafted."""
    with serve.client() as client:
        identity = client.read(TEXT).id
        drafted = client.ask("What is the weight?", document=identity, max_new_tokens=24)
        plain = client.ask("What is the weight?", document=identity, max_new_tokens=24, draft=False)
        assert drafted.text == plain.text and plain.done is not None and plain.done.usage.drafted_tokens == 0
