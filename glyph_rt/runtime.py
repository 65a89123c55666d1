"""Runtime: joins the three wings. The embedding API of glyph-rt.

with Runtime.open() as runtime, runtime.read(text) as document:
    for piece in document.ask("What is the notice period?"):
        print(piece, end="")
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.documents import Answering, Document, Progress, ProgressCallback, ReadTimings
from glyph_rt.errors import ClosedError, InputError, LimitError, ModelError
from glyph_rt.identity import digest
from glyph_rt.language import KVTail, LanguageModel, Past, PromptTemplate, prefill
from glyph_rt.memory import KVArena, Limits, MemoryPlan, Reservation
from glyph_rt.typeset import BLOCK, PRESETS, Layout, Measure, Page, Style, Typesetter, load_style
from glyph_rt.vision import MAX_BATCH, ProbePage, VisionEncoder, default_store, open_encoder

DEFAULT_STYLE = "glyph-en-72"  # for models without a style.json: the layout zai-org/Glyph was trained on


class Runtime:
    """An opened model that reads documents. Reading and answering may be called from several threads."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        typesetter: Typesetter,
        encoder: VisionEncoder,
        model: LanguageModel,
        template: PromptTemplate,
        limits: Limits,
    ) -> None:
        self.checkpoint, self.typesetter, self.encoder = checkpoint, typesetter, encoder
        self.model, self.template, self.limits = model, template, limits
        self.arena = KVArena(limits.kv_bytes)
        self._closed = False

    @classmethod
    def open(
        cls,
        model: str | Path | None = None,
        *,
        style: str | Style | None = None,
        encoder: str = "auto",
        limits: Limits | None = None,
        store: Path | None = None,
    ) -> Runtime:
        """Open a model directory in Hugging Face layout; None: the embedded reader.

        style: a preset's name, a JSON file or a Style; None: the one the model was trained for. encoder: "auto", "torch",
        "onnx", or a name that `glyph-rt doctor` lists. store: where exported vision graphs are looked for.

        Raises ModelError, StyleError, EncoderError, OptionError.
        """
        checkpoint = Checkpoint.open(None if model is None else Path(model))
        limits = limits or Limits()
        typesetter = open_typesetter(checkpoint, style, limits.page_bytes)
        vision = open_encoder(checkpoint, encoder, probe_page(typesetter), store or default_store())
        language = LanguageModel(checkpoint)
        _ = checkpoint.digest  # names every document's KV; hashed now, while the files that were just read are in memory
        if vision.out_hidden != checkpoint.config.text_config.hidden_size:
            raise ModelError(
                f"{checkpoint.path}: the vision tower gives {vision.out_hidden} features, "
                f"the decoder takes {checkpoint.config.text_config.hidden_size}"
            )
        return cls(checkpoint, typesetter, vision, language, PromptTemplate(checkpoint), limits)

    @property
    def style(self) -> Style:
        return self.typesetter.style

    def plan(self) -> MemoryPlan:
        """How this runtime spends memory."""
        shape = self.model.kv_shape
        return MemoryPlan(self.model.weight_bytes, self.arena.budget, shape.bytes_per_token, self.model.context)

    def read(self, text: str, progress: ProgressCallback | None = None) -> Document:
        """Typeset, encode and prefill `text`, page by page. What `progress` raises stops it.

        Raises InputError for a text without a visible character, and LimitError, before any page is drawn, when it cannot fit.
        """
        if self._closed:
            raise ClosedError("this runtime was closed")
        start = time.perf_counter()
        self._admit_text(text)
        layout = self._lay_out(text, progress)
        tokens, reservation = self._admit_layout(layout)
        typeset_s = time.perf_counter() - start
        try:
            return self._read(text, layout, tokens, reservation, typeset_s, progress)
        except BaseException:
            reservation.release()
            raise

    def measure(self, text: str) -> Measure:
        """Pages and visual tokens of `text`, without drawing."""
        return self.typesetter.measure(text)

    @property
    def pages_in_context(self) -> int:
        """Whole pages of the style that the model's context holds, with at least one token left to answer."""
        one, two = (self.template.document_tokens(n, n * self.style.visual_tokens) for n in (1, 2))
        return max(0, (self.model.context - 1 - one) // (two - one) + 1)

    def close(self) -> None:
        """Refuse further reading. Documents that are open stay usable until they are closed."""
        self._closed = True

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _admit_text(self, text: str) -> None:
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if size > self.limits.text_bytes:
            told = f"the text has {size:,} bytes and the limit is {self.limits.text_bytes:,}"
            raise LimitError(f"{told}; split it or raise --text-bytes", public=told, field="text")
        if not text.strip():
            raise InputError("the text is empty; there is nothing to read", public="the text shows nothing to read", field="text")

    def _lay_out(self, text: str, progress: ProgressCallback | None) -> Layout:
        """The text's layout, given up as soon as what is laid out is too much: lines of a hopeless text would fill memory."""

        def advance(so_far: Measure) -> None:
            if progress is not None:
                progress(Progress("layout", so_far.characters, len(text)))
            self._check_fit(so_far, len(text) / so_far.characters)

        return self.typesetter.layout(text, advance)

    def _admit_layout(self, layout: Layout) -> tuple[int, Reservation]:
        """The document's cache slots, and room for them."""
        measure = layout.measure
        tokens = self._check_fit(measure)
        size = tokens * self.model.kv_shape.bytes_per_token
        return tokens, self.arena.reserve(size, f"a document of {measure.pages:,} pages ({tokens:,} tokens)")

    def _check_fit(self, measure: Measure, scale: float = 1.0) -> int:
        """Cache slots of `measure`. Raises LimitError if these are too many; its figures are then scaled up to the whole text."""
        tokens = self.template.document_tokens(measure.pages, measure.visual_tokens)
        fills = f"the text fills {'about ' if scale > 1 else ''}{int(measure.pages * scale):,} pages"
        if tokens >= self.model.context:
            told = (
                f"{fills} ({int(tokens * scale):,} tokens) and the model's context is {self.model.context:,} tokens "
                f"(about {self.pages_in_context} pages)"
            )
            knobs = "split the text, or use a denser --style or a --model with a longer context"
            raise LimitError(f"{told}; {knobs}", public=told, field="text")
        if self.limits.pages is not None and measure.pages > self.limits.pages:
            told = f"{fills} and the limit is {self.limits.pages:,}"
            raise LimitError(f"{told}; split it or raise --pages", public=told, field="text")
        return tokens

    def _read(
        self, text: str, layout: Layout, tokens: int, reservation: Reservation, typeset_s: float, progress: ProgressCallback | None
    ) -> Document:
        encode_s = prefill_s = 0.0
        past = Past((), KVTail(self.model.kv_shape, tokens))
        position = 0
        digests: list[str] = []
        batches = _batches(self.typesetter.draw(layout))
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            drawn = time.perf_counter()
            typeset_s += drawn - before
            if batch is None:
                break
            visual = self.encoder.encode(np.stack([page.patches for page in batch]), batch[0].width, batch[0].height)
            encode_s += time.perf_counter() - drawn
            for page, page_tokens in zip(batch, visual, strict=True):
                before = time.perf_counter()
                piece = self.template.page(page.number, position, page.width // BLOCK, page.height // BLOCK)
                prefill(self.model, piece, past, page_tokens)
                position = piece.end
                digests.append(page.digest)
                prefill_s += time.perf_counter() - before
                if progress is not None:
                    progress(Progress("read", page.number, layout.measure.pages))
        identity = digest("document-kv/1", self.checkpoint.digest, str(self.model.dtype), self.encoder.name, *digests)
        return Document(
            means=Answering(self.model, self.template, self.arena),
            segment=past.tail.seal(identity),
            reservation=reservation,
            next_position=position,
            measure=layout.measure,
            source=np.array(self.template.encode(text), np.int32),
            timings=ReadTimings(typeset_s, encode_s, prefill_s),
        )


def _batches(pages: Iterable[Page]) -> Iterator[list[Page]]:
    """Neighbours of one size and one number of colour planes, as the encoder takes them, at most MAX_BATCH at a time."""
    batch: list[Page] = []
    for page in pages:
        if batch and (len(batch) == MAX_BATCH or (page.width, page.patches.shape) != (batch[0].width, batch[0].patches.shape)):
            yield batch
            batch = []
        batch.append(page)
    if batch:
        yield batch


def open_typesetter(checkpoint: Checkpoint, asked: str | Style | None, cache_bytes: int = 0) -> Typesetter:
    """The typesetter of the asked style, or else of the one the model was trained for, whose glyphs are checked."""
    if asked is not None:
        return Typesetter(asked if isinstance(asked, Style) else load_style(asked), cache_bytes)
    trained = checkpoint.trained_style
    if trained is None:
        return Typesetter(PRESETS[DEFAULT_STYLE], cache_bytes)
    typesetter = Typesetter(trained.style, cache_bytes)
    if typesetter.atlas.digest() != trained.atlas_digest:
        raise ModelError(
            f"style {trained.style.name!r} draws other glyphs here than the model was trained on; "
            "install the font and the freetype-py version it was trained with, or choose a --style"
        )
    return typesetter


def probe_page(typesetter: Typesetter) -> ProbePage:
    """A full page of the style, on which vision encoders are timed. Its line ends show whether the style marks them in colour."""
    page = next(typesetter.pages("The quick brown fox jumps over 13 lazy dogs.\n" * 400))
    return ProbePage(page.patches[None].copy(), page.width, page.height)
