"""Trains the embedded reader from scratch, on a CPU or a GPU, on pages drawn on the fly.

    glyph-rt train-reader --out DIR [--start MODEL]

Losses: next character of the answers; the character under every cell of a page, read from its visual token; and a
pointer: one attention head learns to look at the visual token that holds the next character. The run is seeded, logs
its curve to OUT/log.jsonl, and resumes from OUT/state.pt.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from glyph_rt.export.reader.alphabet import USER
from glyph_rt.export.reader.curriculum import SHARES, Stage, curriculum
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.growth import grown
from glyph_rt.export.reader.muon import Muon, matrix_dtype
from glyph_rt.export.reader.network import Reader, load_checkpoint_state
from glyph_rt.export.reader.package import write_package
from glyph_rt.export.reader.prefetch import Prefetcher
from glyph_rt.export.reader.samples import IGNORE, Batch, SampleMaker, Shape
from glyph_rt.export.reader.size import Size
from glyph_rt.export.reader.vocabulary import HELD_OUT
from numpy.typing import NDArray
from torch import Tensor

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.typeset import PRESETS, Style, Typesetter


@dataclass(frozen=True)
class Options:
    """Of one training run."""

    minutes: float = 120.0
    seed: int = 0
    start: str | None = None  # a model directory, or the folder of a run, whose weights to go on from
    threads: int = 2  # batches computed side by side, and averaged, in every step
    device: str = "cpu"  # or "cuda", for which one thread, more makers and a larger scale are right
    makers: int = 0  # processes that make batches; 0: a thread
    scale: int = 1  # times the documents in every batch
    compiled: bool = True  # fuse what the layers do besides products: a third faster, after half a minute for every shape of batch
    learning_rate: float = 3e-3  # of Muon, for matrices
    adam_rate: float = 2e-3  # for everything else
    warm_up: int = 40  # steps
    character_weight: float = 1.0
    pointer_weight: float = 0.5
    slot_weight: float = 0.5
    value_weight: float = 0.5
    end_weight: float = 2.0  # of the token that ends an answer


class Trainer:
    """One training run over one style."""

    def __init__(self, style: Style, options: Options, out: Path, size: Size | None = None) -> None:
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(options.seed)
        self.options, self.out, self.style = options, out, style
        self.size = size or Size()
        self.typesetter = Typesetter(style)
        self.device = torch.device(options.device)
        self.reader = Reader(self.size, style.height // 14, style.width // 14).to(self.device)
        if options.start is not None:
            self._start_from(Path(options.start))
        # A thread per batch waits for the others once a step; torch's own threads would do so at every operation, which costs
        # most of the time on a machine that others use too.
        _set_up_thread()
        if options.compiled:
            for layer in (*self.reader.layers, *self.reader.visual.blocks):
                layer.compile(dynamic=False)
        self._workers = ThreadPoolExecutor(options.threads, initializer=_set_up_thread)
        matrices, others = [], []
        for name, parameter in self.reader.named_parameters():
            hidden = parameter.ndim == 2 and not any(k in name for k in ("embed", "head", "position", "patch"))
            (matrices if hidden else others).append(parameter)
        self.muon = Muon(matrices, lr=options.learning_rate)
        self.adam = torch.optim.AdamW(others, lr=options.adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.elapsed = 0.0  # seconds trained
        self.step = 0
        self.averages: dict[str, float] = {}

    # -- the run

    def run(self) -> None:
        """Train to the end of the curriculum, saving a state every two minutes."""
        self.resume()
        start = 0.0
        for stage in curriculum(self.options.minutes, trained=self.options.start is not None):
            end = start + stage.minutes * 60
            if self.elapsed < end:
                self._run_stage(stage, start, end)
            start = end
        self._save()

    def _run_stage(self, stage: Stage, start: float, end: float) -> None:
        seed = zlib.crc32(f"{self.options.seed} {stage.name} {self.step}".encode())
        batches = Prefetcher(self.style, stage, seed, self.options.makers, self.options.scale, alike=self.options.threads)
        last = saved = logged = evaluated = time.monotonic()
        try:
            while self.elapsed < end:
                done = (self.elapsed - start) / (end - start)
                rate = stage.peak * (1.0 if done < stage.decay_from else max(0.03, (1 - done) / (1 - stage.decay_from)))
                step = [batches.next() for _ in range(self.options.threads)]
                self.train(step, rate * min(1.0, (self.step + 1) / self.options.warm_up))
                now = time.monotonic()
                self.elapsed += now - last
                last = now
                if now - logged > 20:
                    logged = now
                    self._log(stage, self.averages)
                if now - evaluated > 600 and stage.name != "see":
                    self._log(stage, self.evaluate())
                    evaluated = last = time.monotonic()  # not counted as training
                if now - saved > 120:
                    saved = now
                    self._save()
        finally:
            batches.close()
        self._save()

    def train(self, batches: Sequence[Batch], rate: float) -> None:
        """One optimiser step over the mean loss of `batches`; `rate` scales both learning rates."""
        self.reader.train()
        parameters = list(self.reader.parameters())
        for parameter, *gradients in zip(parameters, *self._workers.map(self._gradients, batches), strict=True):
            there = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = torch.stack(there).sum(0) / len(batches) if there else None
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser, full in ((self.muon, self.options.learning_rate), (self.adam, self.options.adam_rate)):
            for group in optimiser.param_groups:
                group["lr"] = full * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1

    def _gradients(self, batch: Batch) -> Sequence[Tensor | None]:
        """Of the loss of one batch, by every parameter; None where it has no part in it. Runs on a worker thread."""
        dtype = matrix_dtype(self.device)
        # Its cache of cast weights is shared between threads under a lock that is held while tensors are freed, which waits for the GIL:
        # a deadlock with a thread that compiles (seen with torch 2.13).
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32, cache_enabled=False):
            loss = self._loss(batch)
        return torch.autograd.grad(loss, list(self.reader.parameters()), allow_unused=True)

    def _loss(self, batch: Batch) -> Tensor:
        o, vision = self.options, batch.shape.vision
        ink, characters = self._ink(batch), self._tensor(batch.characters)
        if vision == "only":
            loss = F.cross_entropy(self.reader.guesses(self.reader.visual(ink)).flatten(0, -2), characters.flatten())
            self._average("characters", loss.item())
            return loss
        out = self.reader(ink, self._tensor(batch.tokens), frozen_vision=vision == "frozen")
        labels, cells = self._tensor(batch.labels), self._tensor(batch.cells)
        asked, pointed = labels != IGNORE, cells != IGNORE
        answer = F.cross_entropy(out.logits[asked], labels[asked], reduction="none")
        weights = torch.where(labels[asked] == USER, o.end_weight, 1.0)
        # The first pointer finds the visual token; the second reads it again, once the place in it is known.
        pointer = torch.stack([F.cross_entropy(layer[pointed], cells[pointed]) for layer in out.pointers]).mean()
        slot = F.cross_entropy(out.slots[pointed], self._tensor(batch.slots)[pointed])
        fetched = F.cross_entropy(out.fetched.flatten(0, -2), characters.flatten())
        loss = (answer * weights).sum() / weights.sum() + o.pointer_weight * pointer + o.slot_weight * slot + o.value_weight * fetched
        task = "read" if batch.shape.transcribe else "ask"
        self._average(f"{task}{batch.shape.pages}", answer.mean().item())
        self._average(f"pointer_{task}{batch.shape.pages}", pointer.item())
        self._average(f"slot_{task}", slot.item())
        self._average("fetched", fetched.item())
        if vision == "trained":
            seen = F.cross_entropy(self.reader.guesses(out.visual).flatten(0, -2), characters.flatten())
            self._average("characters", seen.item())
            loss = loss + o.character_weight * seen
        return loss

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _ink(self, batch: Batch) -> Tensor:
        """[documents * pages, patches, 196] in 0..1"""
        return self._tensor(batch.patches).float() / 255

    # -- looking at it

    def evaluate(self, seed: int = 777) -> dict[str, float]:
        """Held-out documents. Under teacher forcing an answer is all right exactly when greedy decoding gives it."""
        self.reader.eval()
        out: dict[str, float] = {}
        shapes = Shape(1, 16, 640, True), *(Shape(p, d, 224, False) for p, d in ((1, 24), (4, 16), (8, 12)))
        for batch in (SampleMaker(self.typesetter, Writer(HELD_OUT, seed, SHARES)).batch(shape) for shape in shapes):
            labels = self._tensor(batch.labels)
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # compiling would take longer than these few batches
                logits = self.reader(self._ink(batch), self._tensor(batch.tokens)).logits
            right = (logits.argmax(-1) == labels) | (labels == IGNORE)
            if batch.shape.transcribe:
                out["eval_read_error"] = 1 - right[labels != IGNORE].float().mean().item()
            else:
                answers = [right[d, a].all().item() for d, all_ in enumerate(batch.answers) for a in all_]
                out[f"eval_ask{batch.shape.pages}"] = sum(answers) / len(answers)
        return out

    def _average(self, name: str, value: float) -> None:
        self.averages[name] = 0.95 * self.averages.get(name, value) + 0.05 * value

    def _log(self, stage: Stage, figures: dict[str, float]) -> None:
        line: dict[str, Any] = {"minutes": round(self.elapsed / 60, 2), "step": self.step, "stage": stage.name}
        line |= {k: round(v, 4) for k, v in sorted(figures.items())}
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    # -- keeping it

    def _start_from(self, path: Path) -> None:
        run = path / "state.pt"
        if run.exists():
            state = torch.load(run, map_location="cpu", weights_only=True)
            size, weights = Size(**state["size"]), state["reader"]
        else:
            checkpoint = Checkpoint.open(path)
            size = Size.of(checkpoint.config)
            begun = Reader(size, self.reader.rows, self.reader.columns)
            load_checkpoint_state(begun, dict(checkpoint.tensors("")))
            weights = begun.state_dict()
        self.reader.load_state_dict(grown(self.reader, weights, size))

    def _save(self) -> None:
        state = {
            "options": asdict(self.options), "style": self.style.to_json(), "size": asdict(self.size),
            "reader": self.reader.state_dict(),
            "muon": self.muon.state_dict(), "adam": self.adam.state_dict(),
            "elapsed": self.elapsed, "step": self.step, "averages": self.averages,
        }  # fmt: skip
        part = self.out / "state.pt.part"
        torch.save(state, part)
        part.replace(self.out / "state.pt")

    def resume(self) -> None:
        """Take up the state that an earlier run left in `out`, if there is one."""
        path = self.out / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.reader.load_state_dict(state["reader"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.elapsed, self.step, self.averages = state["elapsed"], state["step"], state["averages"]


def train(out: Path, options: Options, style: Style = PRESETS["reader"]) -> None:
    """Train on pages of `style`, or go on where `out` stands, and write the model to `out`/model."""
    trainer = Trainer(style, options, out)
    (out / "pid").write_text(f"{os.getpid()}\n", encoding="utf-8")  # for others on the machine: kill -STOP, kill -CONT
    trainer.run()
    write_package(trainer.reader.cpu(), trainer.typesetter, out / "model")


def package_state(out: Path, target: Path) -> None:
    """Write the model that a run in `out` has reached so far."""
    style = Style.from_json(torch.load(out / "state.pt", map_location="cpu", weights_only=True)["style"], str(out))
    trainer = Trainer(style, Options(), out)
    trainer.resume()
    write_package(trainer.reader, trainer.typesetter, target)


def _set_up_thread() -> None:
    torch.set_num_threads(1)
    # One compilation for every shape of batch; beyond torch's limit of eight, layers would run as they are. Each thread has its own limit.
    torch._dynamo.config.recompile_limit = 64
