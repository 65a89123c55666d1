"""Which encoder this box uses: the fastest, by measurement, of those that reproduce the golden pages."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import EncoderError, GlyphError, OptionError, ParityError
from glyph_rt.identity import digest
from glyph_rt.vision.candidates import ORACLE, Candidate, candidates
from glyph_rt.vision.device import GpuUse
from glyph_rt.vision.encoder import VisionEncoder
from glyph_rt.vision.golden import Golden, check
from glyph_rt.vision.graph import graph_folder
from glyph_rt.vision.parity import Parity
from glyph_rt.vision.torch_encoder import TorchEncoder

CHOICES = ("auto", "torch", "onnx", "tensorrt")  # or a candidate's name, or the beginning of one
RUNS = 20
TIMING_S = 1.0  # seconds after which an encoder is not timed once more
REMEMBERED = 16  # surveys kept: one per page size, set of graphs, and versions
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbePage:
    """A full page of the style in use, on which encoders are timed: ink uint8 [1, patches, 196 or 588] and its size in px."""

    patches: NDArray[np.uint8]
    width: int
    height: int


@dataclass(frozen=True)
class Trial:
    """How one candidate did here."""

    name: str
    problem: str = ""  # why it cannot be used; empty when it can
    refused: bool = False  # it runs, but does not reproduce the golden pages
    seconds: float = 0.0  # per page
    cosine: float = 1.0  # the lowest of any golden visual token with the oracle's
    error: float = 0.0  # the largest difference from the oracle, relative to its range
    report: str = ""  # of a refusal, block by block


def open_encoder(checkpoint: Checkpoint, choice: str, probe: ProbePage, store: Path, use: GpuUse | None = None) -> VisionEncoder:
    """The encoder `choice` names: "torch" is the oracle, "auto" the fastest of all, "onnx" and "tensorrt" the fastest of their kind.

    Whatever it is, unless it is the oracle itself, it reproduced the golden pages just now. Candidates that do not are logged with their
    figures, and the next fastest serves. `use` says how the GPU may be used, if there is one. Raises OptionError for an unknown choice,
    EncoderError when nothing that `choice` names can serve.
    """
    if choice.partition("-")[0] not in CHOICES:
        raise OptionError(f"no vision encoder {choice!r}; choose one of: {', '.join(CHOICES)}, or a name that glyph-rt doctor lists")
    if choice == ORACLE or (choice == "auto" and not store.is_dir()):  # before the digest, which reads every weight
        return TorchEncoder(checkpoint)
    found = [c for c in candidates(checkpoint, store, use) if choice == "auto" or c.answers_to(choice)] if store.is_dir() else []
    if not found:
        what, command = ("engine", "build --profile NAME") if choice.startswith("tensorrt") else ("exported graph", "export")
        raise EncoderError(
            f"no {what} in {store} answers to --encoder {choice}; make one with: glyph-rt {command} --model {checkpoint.path}"
        )
    if [c.name for c in found] == [ORACLE]:
        return TorchEncoder(checkpoint)
    trials = survey(checkpoint, found, probe, store) if len(found) > 1 else [Trial(found[0].name)]
    problems: list[GlyphError] = [_problem(t) for t in trials if t.problem]
    for problem in problems:
        _log_refusal(problem, logging.WARNING if isinstance(problem, ParityError) else logging.INFO)
    for trial in ranked(trials):
        candidate = next(c for c in found if c.name == trial.name)
        try:
            return admit(candidate, checkpoint, large=candidate.on_gpu)[0]
        except GlyphError as error:
            problems.append(error)
            _log_refusal(error, logging.WARNING)
    raise problems[0]


def survey(checkpoint: Checkpoint, found: Sequence[Candidate], probe: ProbePage, store: Path, again: bool = False) -> list[Trial]:
    """How each candidate does on this box; remembered in `store` until anything it depends on changes, or it is asked for again."""
    key = _survey_key(checkpoint, found, probe)
    path = graph_folder(checkpoint, store) / "surveys.json"
    remembered = _read(path)
    if again or key not in remembered:
        remembered[key] = [asdict(trial(candidate, checkpoint, probe)) for candidate in found]
        _write(path, dict(list(remembered.items())[-REMEMBERED:]))
    return [Trial(**fields) for fields in remembered[key]]


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Those that can be used, the fastest first."""
    return sorted((t for t in trials if not t.problem), key=lambda t: t.seconds)


def trial(candidate: Candidate, checkpoint: Checkpoint, probe: ProbePage) -> Trial:
    """Open one candidate, hold it to the golden pages, and time it on the probe page."""
    try:
        encoder, parity = admit(candidate, checkpoint, large=True)
        return Trial(candidate.name, "", False, seconds_per_page(encoder, probe), parity.cosine, parity.error)
    except ParityError as error:
        return Trial(candidate.name, str(error), refused=True, report=error.report)
    except GlyphError as error:
        return Trial(candidate.name, str(error))


def admit(candidate: Candidate, checkpoint: Checkpoint, large: bool) -> tuple[VisionEncoder, Parity]:
    """The candidate's encoder, after it reproduced the golden pages. Raises EncoderError when there are none, ParityError if it did not.

    The oracle is what they were made with: it needs none, so that it can serve whatever became of the store. `large` golden pages are
    looked at when a candidate is first tried; at a later load on a CPU the small ones do, since nothing there depends on the size.
    """
    if candidate.name == ORACLE:
        return TorchEncoder(checkpoint), Parity(1.0, 0.0)
    golden = Golden.load(candidate.golden, checkpoint.digest)
    encoder = candidate.open(golden)
    return encoder, check(encoder, golden, candidate.precision, large)


def _problem(trial: Trial) -> GlyphError:
    return ParityError(trial.problem, report=trial.report) if trial.refused else EncoderError(trial.problem)


def _log_refusal(problem: GlyphError, level: int) -> None:
    """One line for people, and the report per block below it."""
    report = problem.report if isinstance(problem, ParityError) else ""
    _log.log(level, "%s; it is not used%s", problem, f"\n{report}" if report else "")


def seconds_per_page(encoder: VisionEncoder, probe: ProbePage) -> float:
    """Best of as many runs as TIMING_S allows, up to RUNS, after one that is not counted: small pages are many runs, since a busy box
    slows any three of them."""
    times: list[float] = []
    while len(times) <= RUNS and (len(times) < 2 or sum(times[1:]) < TIMING_S):
        start = time.perf_counter()
        encoder.encode(probe.patches, probe.width, probe.height)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _survey_key(checkpoint: Checkpoint, found: Sequence[Candidate], probe: ProbePage) -> str:
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    box = (_cpu_name(), str(os.cpu_count()), str(torch.get_num_threads()), gpu, torch.__version__, onnxruntime.__version__)
    page = f"{probe.width}x{probe.height}x{probe.patches.shape[-1]}"
    golden = (str(c.golden.stat().st_mtime_ns) if c.golden.is_file() else "none" for c in found)
    return digest("survey/2", checkpoint.digest, *box, page, *(field for c in found for field in (c.name, c.signature)), *golden)


def _cpu_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Remembered surveys; none when the file is missing or broken, which only costs measuring again."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {key: [asdict(Trial(**fields)) for fields in rows] for key, rows in data.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(path: Path, surveys: dict[str, list[dict[str, Any]]]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(surveys, indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as error:  # a store that cannot be written to is still one to run from
        _log.info("timings of vision encoders are not remembered: %s", error)
