"""Trains the embedded reader from scratch, on a CPU or a GPU, on pages drawn on the fly.

    glyph-rt train-reader --out DIR [--start MODEL]

The run is seeded, logs its curve to OUT/log.jsonl, and resumes from OUT/state.pt. What it writes is not where it ended but the mean of
where it has been of late.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from glyph_rt.export.reader.curriculum import SHARES, Stage, curriculum
from glyph_rt.export.reader.documents import Writer
from glyph_rt.export.reader.growth import grown
from glyph_rt.export.reader.losses import Weights, ink
from glyph_rt.export.reader.muon import Muon
from glyph_rt.export.reader.network import HEADS_NOT_SHIPPED, Reader, load_checkpoint_state
from glyph_rt.export.reader.package import write_package
from glyph_rt.export.reader.prefetch import Prefetcher
from glyph_rt.export.reader.replicas import Replicas
from glyph_rt.export.reader.samples import IGNORE, Batch, SampleMaker, Shape
from glyph_rt.export.reader.size import Size
from glyph_rt.export.reader.vocabulary import HELD_OUT

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.typeset import PRESETS, Style, Typesetter

# Polynomial-decay averaging (Shamir and Zhang, ICML 2013): step t weighs t ** RECENT, so that the mean is of about the last sixth of a run,
# however long. In the middle of one, the mean of two states eight minutes apart gave 85 % of answers on 8 pages, the later one 81 %.
RECENT = 5


@dataclass(frozen=True)
class Options:
    """Of one training run."""

    minutes: float = 120.0
    seed: int = 0
    start: str | None = None  # a model directory, or the folder of a run, whose weights to go on from
    replicas: int = 2  # batches computed side by side, each by a process, and averaged in every step
    device: str = "cpu"  # or "cuda", for which one replica, more makers and a larger scale are right
    makers: int = 0  # processes that make batches; 0: a thread
    scale: int = 1  # times the documents in every batch
    compiled: bool = True  # fuse what the layers do besides products: a third faster, after half a minute for every shape of batch
    learning_rate: float = 3e-3  # of Muon, for matrices
    adam_rate: float = 2e-3  # for everything else
    warm_up: int = 40  # steps
    weights: Weights = Weights()  # noqa: RUF009  # frozen


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
        self.mean = deepcopy(self.reader).eval()
        self.replicas = Replicas(self.reader, options.weights, options.replicas, options.compiled)
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
        self.replicas.close()

    def _run_stage(self, stage: Stage, start: float, end: float) -> None:
        seed = zlib.crc32(f"{self.options.seed} {stage.name} {self.step}".encode())
        batches = Prefetcher(self.style, stage, seed, self.options.makers, self.options.scale, alike=self.options.replicas)
        last = saved = logged = evaluated = time.monotonic()
        try:
            while self.elapsed < end:
                done = (self.elapsed - start) / (end - start)
                rate = stage.peak * (1.0 if done < stage.decay_from else max(0.03, (1 - done) / (1 - stage.decay_from)))
                step = [batches.next() for _ in range(self.options.replicas)]
                self.train(step, rate * min(1.0, (self.step + 1) / self.options.warm_up), stage.heads_only)
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

    def train(self, batches: Sequence[Batch], rate: float, heads_only: bool = False) -> None:
        """One optimiser step over the mean loss of at most `replicas` batches; `rate` scales both learning rates.

        heads_only: what is shipped stays as it is.
        """
        self.reader.train()
        parameters = list(self.reader.parameters())
        gradients, told = self.replicas.mean_gradients(batches)
        for (name, parameter), gradient in zip(self.reader.named_parameters(), gradients, strict=True):
            parameter.grad = None if heads_only and not name.startswith(HEADS_NOT_SHIPPED) else gradient
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser, full in ((self.muon, self.options.learning_rate), (self.adam, self.options.adam_rate)):
            for group in optimiser.param_groups:
                group["lr"] = full * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        for parts in told:
            for name, value in parts.items():
                self.averages[name] = 0.95 * self.averages.get(name, value) + 0.05 * value
        self.step += 1
        with torch.no_grad():
            for mean, now in zip(self.mean.parameters(), parameters, strict=True):
                mean.lerp_(now, (RECENT + 1) / (self.step + RECENT))

    # -- looking at it

    def evaluate(self, seed: int = 777) -> dict[str, float]:
        """The mean, on held-out documents. Under teacher forcing an answer is all right exactly when greedy decoding gives it."""
        out: dict[str, float] = {}
        shapes = Shape(1, 16, 640, True), *(Shape(p, d, 224, False) for p, d in ((1, 24), (4, 16), (8, 12)))
        for batch in (SampleMaker(self.typesetter, Writer(HELD_OUT, seed, SHARES)).batch(shape) for shape in shapes):
            labels = torch.from_numpy(batch.labels).to(self.device)
            with torch.no_grad():
                logits = self.mean(ink(batch, self.device), torch.from_numpy(batch.tokens).to(self.device)).logits
            right = (logits.argmax(-1) == labels) | (labels == IGNORE)
            if batch.shape.transcribe:
                out["eval_read_error"] = 1 - right[labels != IGNORE].float().mean().item()
            else:
                answers = [right[d, a].all().item() for d, all_ in enumerate(batch.answers) for a in all_]
                out[f"eval_ask{batch.shape.pages}"] = sum(answers) / len(answers)
        return out

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
            size, weights = Size(**state["size"]), state["mean"]
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
            "reader": self.reader.state_dict(), "mean": self.mean.state_dict(),
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
        self.mean.load_state_dict(state["mean"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.elapsed, self.step, self.averages = state["elapsed"], state["step"], state["averages"]


def train(out: Path, options: Options, style: Style = PRESETS["reader"]) -> None:
    """Train on pages of `style`, or go on where `out` stands, and write the model to `out`/model."""
    trainer = Trainer(style, options, out)
    (out / "pid").write_text(f"{os.getpid()}\n", encoding="utf-8")  # for others on the machine: kill -STOP, kill -CONT
    trainer.run()
    write_package(trainer.mean.cpu(), trainer.typesetter, out / "model")
