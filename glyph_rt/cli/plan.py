"""`glyph-rt plan`: how a memory budget is spent."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from glyph_rt.cli.opening import Opening
from glyph_rt.errors import OptionError
from glyph_rt.memory.limits import parse_size
from glyph_rt.memory.plan import Budget, MemoryPlan


@dataclass(frozen=True)
class PlanOptions:
    """The command line of `plan`."""

    budget: str
    opening: Opening
    reserve: str
    measure: bool
    as_json: bool


def run(options: PlanOptions) -> None:
    """Print the plan; then raise PlanError if it does not hold."""
    budget = Budget(parse_size(options.budget), parse_size(options.reserve))
    plan = _measured(options, budget) if options.measure else _estimated(options, budget)
    if options.as_json:
        figures = asdict(plan) | {name: getattr(plan, name) for name in ("budget", "kv_tokens", "pages", "document_pages", "documents")}
        print(json.dumps(figures))
    else:
        print(plan.table())
    plan.check()


def _measured(options: PlanOptions, budget: Budget) -> MemoryPlan:
    with options.opening.open() as runtime:
        return runtime.plan(budget)


def _estimated(options: PlanOptions, budget: Budget) -> MemoryPlan:
    from glyph_rt.checkpoint import Checkpoint
    from glyph_rt.language import Quant
    from glyph_rt.memory.estimate import Target, estimated_plan
    from glyph_rt.runtime import style_of

    opening = options.opening
    if opening.cuda_graphs and opening.device != "cuda":
        raise OptionError("--cuda-graphs goes with --device cuda")
    checkpoint = Checkpoint.open(opening.model, weights=False)
    target = Target(opening.device, opening.precision, Quant.parse(opening.quant))
    return estimated_plan(checkpoint.config, style_of(checkpoint, opening.style), opening.limits(), budget, target)
