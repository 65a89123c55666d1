"""How a command opens a model: the options that `ask`, `batch`, `serve`, `eval` and `plan` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glyph_rt.memory.limits import KVDtype, Limits, parse_size

if TYPE_CHECKING:
    from glyph_rt.memory.plan import Budget
    from glyph_rt.runtime import Runtime


@dataclass(frozen=True)
class Opening:
    """A model, its page style, and what it may take, as the command line spells them; the defaults are those of the options."""

    model: Path | None = None
    style: str | None = None
    encoder: str = "auto"
    quant: str | None = None
    kv_bytes: str = "1GiB"
    kv_dtype: str = "model"
    text_bytes: str = "16MiB"
    device: str = "cpu"
    precision: str = "fp32"
    cuda_graphs: bool = False

    def limits(self, **others: Any) -> Limits:
        """With `others` of `Limits`. Imports no torch. Raises OptionError for what is no size, and no KV dtype."""
        return Limits(
            kv_bytes=parse_size(self.kv_bytes),
            kv_dtype=KVDtype.parse(self.kv_dtype),
            text_bytes=parse_size(self.text_bytes),
            cuda_graphs=self.cuda_graphs,
            **others,
        )

    def open(self, limits: Limits | None = None, budget: Budget | None = None) -> Runtime:
        """The runtime. limits: others than the command line's. Raises what `Runtime.open` raises, and OptionError."""
        from glyph_rt.language import Quant
        from glyph_rt.runtime import Runtime

        return Runtime.open(
            self.model,
            style=self.style,
            encoder=self.encoder,
            limits=limits or self.limits(),
            quant=Quant.parse(self.quant),
            device=self.device,
            precision=self.precision,
            budget=budget,
        )
