"""What an engine is, in words: the manifest that lies beside its plan, and whether it is meant for this box."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from glyph_rt.errors import EngineRefusedError
from glyph_rt.identity import digest
from glyph_rt.vision.gpu import Gpu
from glyph_rt.vision.graph import FLAVOURS, PRECISIONS, GraphKind

SCHEMA = "engine/2"
AHEAD = "any"  # gpu and driver of an engine built ahead of time, for a GPU that was not there


@dataclass(frozen=True)
class Wanted:
    """The engine a box wants to load: what it must have been made from, by and for."""

    model_digest: str
    onnx_digest: str  # SHA-256 of the graph's file
    tensorrt: str  # flavour: tensorrt or tensorrt-rtx
    version: str  # of TensorRT
    gpu: Gpu


@dataclass(frozen=True)
class Manifest:
    """Everything that decides whether a plan may be loaded, and the figures of its build. All of it is signed."""

    model_digest: str
    onnx_digest: str
    tensorrt: str
    version: str
    gpu: str  # its name, or "any"
    compute_capability: str
    driver: str  # or "any"
    profile: str
    profile_digest: str
    flavour: str  # of the graph: portable or modern
    precision: str
    colour: bool  # takes patches of 588 bytes
    plan_digest: str  # SHA-256
    plan_bytes: int
    created: str  # ISO 8601, UTC
    fused: int  # attentions that became one kernel
    depth: int  # of how many
    build_seconds: float
    scratch_bytes: int  # of activations, as the builder reported; 0: it did not
    parity: dict[str, float] = field(default_factory=dict)  # figures against the golden pages; empty: not run on a GPU yet
    schema: str = SCHEMA

    @property
    def kind(self) -> GraphKind:
        """Of the graph it was built from."""
        return GraphKind(self.flavour, self.precision, self.colour)

    @property
    def name(self) -> str:
        """Of its folder in the store: one for each thing it could be confused with, and for each build."""
        parts = (self.model_digest, self.onnx_digest, self.tensorrt, self.version, self.gpu, self.compute_capability, self.driver)
        return f"{self.profile}-{digest(SCHEMA, *parts, self.profile_digest)[:16]}-{self.plan_digest[:8]}"

    def supersedes(self, other: Manifest) -> bool:
        """Whether `other` is an earlier build of the same."""
        return self.name.rpartition("-")[0] == other.name.rpartition("-")[0]

    def check(self, wanted: Wanted) -> None:
        """Raise EngineRefusedError("foreign-..." or "stale") unless this engine is what is wanted, on this box."""
        for reason, what, found, expected in self._comparisons(wanted):
            if found not in (expected, AHEAD):
                raise EngineRefusedError(reason, f"engine {self.name} was built for {what} {found}; this is {expected}")

    def _comparisons(self, wanted: Wanted) -> Iterator[tuple[str, str, str, str]]:
        yield "foreign-tensorrt", "TensorRT", f"{self.tensorrt} {self.version}", f"{wanted.tensorrt} {wanted.version}"
        yield "foreign-gpu", "compute capability", self.compute_capability, wanted.gpu.compute_capability
        # Only TensorRT for RTX builds ahead of time; from any other, "any" is a lie and is compared as it stands.
        ahead = self.tensorrt == "tensorrt-rtx"
        yield "foreign-gpu", "the GPU", self.gpu if ahead or self.gpu != AHEAD else "none", wanted.gpu.name
        yield "foreign-driver", "driver", self.driver if ahead or self.driver != AHEAD else "none", wanted.gpu.driver
        yield "stale", "another model:", self.model_digest, wanted.model_digest
        yield "stale", "another graph:", self.onnx_digest, wanted.onnx_digest

    def to_bytes(self) -> bytes:
        """Canonical JSON: the same manifest always gives the same bytes, which are what is signed."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Raises ValueError when it is no manifest of this schema, field by field."""
        found: Any = json.loads(data)
        names = {f.name: str(f.type).split("[")[0] for f in dataclasses.fields(cls)}
        if not isinstance(found, dict) or found.keys() != names.keys() or found["schema"] != SCHEMA:
            raise ValueError(f"not a manifest of schema {SCHEMA}")
        wrong = [name for name, kind in names.items() if type(found[name]).__name__ not in (kind, "int" if kind == "float" else kind)]
        if wrong:
            raise ValueError(f"{wrong[0]} has the wrong type")
        if found["flavour"] not in FLAVOURS or found["precision"] not in PRECISIONS:
            raise ValueError(f"no graph is {found['flavour']} {found['precision']}")
        return cls(**found)
