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
    device: str
    precision: str
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
    if (options.device, options.precision) != ("cpu", "fp32"):
        raise OptionError("--device and --precision go with --no-measure; what is opened here is measured as it runs")
    with options.opening.open() as runtime:
        return runtime.plan(budget)


def _estimated(options: PlanOptions, budget: Budget) -> MemoryPlan:
    from glyph_rt.checkpoint import Checkpoint
    from glyph_rt.language import Quant
    from glyph_rt.memory.estimate import Target, estimated_plan
    from glyph_rt.runtime import style_of

    opening = options.opening
    checkpoint = Checkpoint.open(opening.model, weights=False)
    target = Target(options.device, options.precision, Quant.parse(opening.quant))
    return estimated_plan(checkpoint.config, style_of(checkpoint, opening.style), opening.limits(), budget, target)
