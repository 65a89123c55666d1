"""Runtime: joins the three wings. The embedding API of glyph-rt.

with Runtime.open() as runtime, runtime.read(text) as document:
    for piece in document.ask("What is the notice period?"):
        print(piece, end="")
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.documents import Document, Means
from glyph_rt.errors import ClosedError, InputError, LimitError, ModelError
from glyph_rt.intake import Effort
from glyph_rt.language import CudaRecorder, LanguageModel, PromptTemplate, Quant, SegmentStore, StepLoop
from glyph_rt.language.model import dtype_of
from glyph_rt.memory.arena import Arena
from glyph_rt.memory.dry_run import dry_run_plan, guard
from glyph_rt.memory.estimate import vision_workspace
from glyph_rt.memory.limits import Limits
from glyph_rt.memory.plan import Budget, MemoryPlan, Share
from glyph_rt.reading import PageReader, Progress, ProgressCallback
from glyph_rt.typeset import PRESETS, Layout, Measure, Style, Typesetter, load_style
from glyph_rt.vision import GpuUse, ProbePage, VisionEncoder, default_store, open_encoder

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
        self.arena = Arena(limits.kv_bytes, "KV memory", "--kv-bytes", limits.waiting, limits.wait_s)
        self.store = SegmentStore(self.arena, limits.host_kv_bytes)
        self.loop = StepLoop(model, CudaRecorder(model.device) if limits.cuda_graphs else None)
        self.texts = Arena(limits.open_text_bytes, "memory for texts", "--open-text-bytes")  # of open documents, with their layouts
        self.texts.reclaim = lambda size: self.store.settle()
        self.kv_shape = replace(model.kv_shape, kept=limits.kv_dtype)  # of documents
        self._reader = PageReader(
            typesetter, encoder, template, self.loop, self.store, self.kv_shape, limits.encoded_bytes, checkpoint.digest
        )
        self._means = Means(self._reader, lambda text, tenant, progress: self.read(text, progress, tenant=tenant))
        self._plan: MemoryPlan | None = None
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
        quant: Quant | None = None,
        device: str = "cpu",
        precision: str = "fp32",
        budget: Budget | None = None,
    ) -> Runtime:
        """Open a model directory in Hugging Face layout; None: the embedded reader.

        style: a preset's name, a JSON file or a Style; None: the one the model was trained for. encoder: "auto", "torch",
        "onnx", or a name that `glyph-rt doctor` lists. store: where exported vision graphs are looked for. quant: how the decoder's
        weights are kept. device: where the decoder runs, "cpu" or "cuda", which nothing has proven yet. precision: what it computes in,
        "fp32", "bf16" or "fp16". budget: what all of it may take, from which, after a dry run, `limits.kv_bytes` follows.

        Raises ModelError, StyleError, EncoderError, OptionError, and PlanError when the budget does not hold the model.
        """
        checkpoint = Checkpoint.open(None if model is None else Path(model))
        limits = limits or Limits()
        typesetter = open_typesetter(checkpoint, style, limits.page_bytes)
        # What the plan gives the vision wing, an encoder with device memory of its own has to do with.
        use = None if budget is None else GpuUse(workspace=vision_workspace(checkpoint.config, typesetter.style, 4))
        vision = open_encoder(checkpoint, encoder, probe_page(typesetter), store or default_store(), use)
        language = LanguageModel(checkpoint, device, dtype_of(precision), quant)
        _ = checkpoint.digest  # names every document's KV; hashed now, while the files that were just read are in memory
        if vision.out_hidden != checkpoint.config.text_config.hidden_size:
            raise ModelError(
                f"{checkpoint.path}: the vision tower gives {vision.out_hidden} features, "
                f"the decoder takes {checkpoint.config.text_config.hidden_size}"
            )
        opened = cls(checkpoint, typesetter, vision, language, PromptTemplate(checkpoint), limits)
        if budget is None:
            return opened
        guard(language.device, budget)
        try:
            plan = opened.plan(budget).check()
        finally:
            opened.close()
        planned = opened.with_kv(plan.kv_budget)
        planned._plan = plan
        return planned

    def with_kv(self, kv_bytes: int) -> Runtime:
        """A runtime of the same opened parts with a KV budget of its own, and no documents."""
        limits = replace(self.limits, kv_bytes=kv_bytes)
        return Runtime(self.checkpoint, self.typesetter, self.encoder, self.model, self.template, limits)

    def with_style(self, style: Style) -> Runtime:
        """A runtime of the same opened model that draws in another style, with a KV budget of its own and no documents."""
        typesetter = Typesetter(style, self.limits.page_bytes)
        return Runtime(self.checkpoint, typesetter, self.encoder, self.model, self.template, self.limits)

    @property
    def style(self) -> Style:
        return self.typesetter.style

    def plan(self, budget: Budget | None = None) -> MemoryPlan:
        """How this runtime spends memory: the plan it was opened by, or, opened without a budget, weights and KV.

        With a `budget`, the plan that a dry run makes of that; it may turn out not to hold.
        """
        if budget is not None:
            return dry_run_plan(self, budget)
        if self._plan is not None:
            return self._plan
        weights = Share("decoder weights", self.model.weight_bytes, "counted")
        per_token, of_turn = self.kv_shape.bytes_per_token, self.model.kv_shape.bytes_per_token
        return MemoryPlan((weights,), self.arena.budget, per_token, of_turn, self.style.visual_tokens + 2, self.model.context)

    def read(
        self, text: str, progress: ProgressCallback | None = None, *, system: str = "", tenant: str = "", priority: int = 0
    ) -> Document:
        """Typeset, encode and prefill `text`, page by page; pages that an open document of the same tenant begins with are shared.
        What `progress` raises stops it. system: what the model is told before the pages; documents share pages only behind an equal
        one. priority: a reading of a higher one goes first.

        Raises InputError for a text without a visible character, LimitError, before any page is drawn, when it can never fit, and
        BusyError when it found no room in time.
        """
        if self._closed:
            raise ClosedError("this runtime was closed")
        effort = Effort()
        size = self.admit_text(text)
        means = self._means_with(system)
        layout = self._lay_out(text, progress, means.template)
        measure = layout.measure
        tokens = self._check_fit(measure, means.template)
        purpose = f"a document of {measure.pages:,} pages ({tokens:,} tokens)"
        self.arena.check_size(tokens * self.kv_shape.bytes_per_token, purpose)
        source = np.array(self.template.encode(text), np.int32)
        room = self.texts.reserve(size + layout.lines.nbytes + source.nbytes, purpose)
        try:
            names = means.reader.name_pages(layout, tenant)
            effort.charge("typeset_s")

            def advance(done: int) -> None:
                if progress is not None:
                    progress(Progress("read", done, measure.pages))

            def on_wait(place: int) -> None:
                if progress is not None:
                    progress(Progress("wait", 0, place))

            lease = means.reader.bring_in(names, layout, purpose, effort, priority, advance, on_wait)
            try:
                return Document(means, layout, names, source, tenant, room, effort)
            finally:
                lease.release()
        except BaseException:
            room.release()
            raise

    def admit_text(self, text: str) -> int:
        """Its bytes in UTF-8. Raises LimitError and InputError for what is not even laid out: too many of them, or none that shows."""
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if size > self.limits.text_bytes:
            told = f"the text has {size:,} bytes and the limit is {self.limits.text_bytes:,}"
            raise LimitError(f"{told}; split it or raise --text-bytes", public=told, field="text")
        if not text.strip():
            raise InputError("the text is empty; there is nothing to read", public="the text shows nothing to read", field="text")
        return size

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

    def _means_with(self, system: str) -> Means:
        """What documents behind this system text work with. Raises ModelError if the model takes none."""
        if not system:
            return self._means
        if any("\ud800" <= c <= "\udfff" for c in system):
            raise InputError("the system text is not valid Unicode (it holds lone surrogates)", field="system")
        reader = self._reader.with_system(system)
        return Means(reader, lambda text, tenant, progress: self.read(text, progress, system=system, tenant=tenant))

    def _lay_out(self, text: str, progress: ProgressCallback | None, template: PromptTemplate) -> Layout:
        """The text's layout, given up as soon as what is laid out is too much: lines of a hopeless text would fill memory."""

        def advance(so_far: Measure) -> None:
            if progress is not None:
                progress(Progress("layout", so_far.characters, len(text)))
            self._check_fit(so_far, template, len(text) / so_far.characters)

        return self.typesetter.layout(text, advance)

    def _check_fit(self, measure: Measure, template: PromptTemplate, scale: float = 1.0) -> int:
        """Cache slots of `measure`. Raises LimitError if these are too many; its figures are then scaled up to the whole text."""
        tokens = template.document_tokens(measure.pages, measure.visual_tokens)
        fills = f"the text fills {'about ' if scale > 1 else ''}{int(measure.pages * scale):,} pages"
        if tokens >= self.model.context:
            told = (
                f"{fills} ({int(tokens * scale):,} tokens) and the model's context is {self.model.context:,} tokens "
                f"(about {self.pages_in_context} pages)"
            )
            knobs = "choose another --strategy than whole (in Python: LongText), a denser --style or a --model with a longer context"
            raise LimitError(f"{told}; {knobs}", public=told, field="text")
        if self.limits.pages is not None and measure.pages > self.limits.pages:
            told = f"{fills} and the limit is {self.limits.pages:,}"
            raise LimitError(f"{told}; split it or raise --pages", public=told, field="text")
        return tokens


def style_of(checkpoint: Checkpoint, asked: str | Style | None) -> Style:
    """The asked style, or else the one the model was trained for."""
    if asked is not None:
        return asked if isinstance(asked, Style) else load_style(asked)
    trained = checkpoint.trained_style
    return PRESETS[DEFAULT_STYLE] if trained is None else trained.style


def open_typesetter(checkpoint: Checkpoint, asked: str | Style | None, cache_bytes: int = 0) -> Typesetter:
    """The typesetter of `style_of`. The glyphs of a trained style are checked."""
    typesetter = Typesetter(style_of(checkpoint, asked), cache_bytes)
    trained = checkpoint.trained_style
    if asked is None and trained is not None and typesetter.atlas.digest() != trained.atlas_digest:
        raise ModelError(
            f"style {trained.style.name!r} draws other glyphs here than the model was trained on; "
            "install the font and the freetype-py version it was trained with, or choose a --style"
        )
    return typesetter


def probe_page(typesetter: Typesetter) -> ProbePage:
    """A full page of the style, on which vision encoders are timed. Its line ends show whether the style marks them in colour."""
    page = next(typesetter.pages("The quick brown fox jumps over 13 lazy dogs.\n" * 400))
    return ProbePage(page.patches[None].copy(), page.width, page.height)
