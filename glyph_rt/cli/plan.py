"""`glyph-rt plan`: how a memory budget is spent."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from glyph_rt.errors import OptionError
from glyph_rt.memory.limits import KVDtype, Limits, parse_size
from glyph_rt.memory.plan import Budget, MemoryPlan


@dataclass(frozen=True)
class PlanOptions:
    """The command line of `plan`."""

    budget: str
    model: Path | None
    style: str | None
    encoder: str
    quant: str | None
    kv_dtype: str
    reserve: str
    text_bytes: str
    measure: bool
    device: str
    precision: str
    cuda_graphs: bool
    as_json: bool


def run(options: PlanOptions) -> None:
    """Print the plan; then raise PlanError if it does not hold."""
    budget = Budget(parse_size(options.budget), parse_size(options.reserve))
    kept = KVDtype.parse(options.kv_dtype)
    limits = Limits(kv_dtype=kept, cuda_graphs=options.cuda_graphs, text_bytes=parse_size(options.text_bytes))
    plan = _measured(options, budget, limits) if options.measure else _estimated(options, budget, limits)
    if options.as_json:
        figures = asdict(plan) | {name: getattr(plan, name) for name in ("budget", "kv_tokens", "pages", "document_pages", "documents")}
        print(json.dumps(figures))
    else:
        print(plan.table())
    plan.check()


def _measured(options: PlanOptions, budget: Budget, limits: Limits) -> MemoryPlan:
    from glyph_rt.language import Quant
    from glyph_rt.runtime import Runtime

    if (options.device, options.precision) != ("cpu", "fp32"):
        raise OptionError("--device and --precision go with --no-measure; what is opened here is measured as it runs")
    quant = Quant.parse(options.quant)
    with Runtime.open(options.model, style=options.style, encoder=options.encoder, limits=limits, quant=quant) as runtime:
        return runtime.plan(budget)


def _estimated(options: PlanOptions, budget: Budget, limits: Limits) -> MemoryPlan:
    from glyph_rt.checkpoint import Checkpoint
    from glyph_rt.language import Quant
    from glyph_rt.memory.estimate import Target, estimated_plan
    from glyph_rt.runtime import style_of

    if options.cuda_graphs and options.device != "cuda":
        raise OptionError("--cuda-graphs goes with --device cuda")
    checkpoint = Checkpoint.open(options.model, weights=False)
    target = Target(options.device, options.precision, Quant.parse(options.quant))
    return estimated_plan(checkpoint.config, style_of(checkpoint, options.style), limits, budget, target)
