"""Visual tokens to text: the decoder, its KV memory, the loop that runs it, prompts and sampling."""

from glyph_rt.language.batching import PAGES_AHEAD, Reading, StepLoop
from glyph_rt.language.constraints import JSON_SCHEMA, REGEX, Constraint
from glyph_rt.language.drafting import Drafter
from glyph_rt.language.graphs import CudaRecorder
from glyph_rt.language.model import LanguageModel
from glyph_rt.language.prompt import PromptTemplate
from glyph_rt.language.quantise import Quant
from glyph_rt.language.rows import Past
from glyph_rt.language.sampling import Sampler, Sampling
from glyph_rt.language.segment_store import Lease, SegmentStore
from glyph_rt.language.segments import KVSegment, KVShape, KVTail
from glyph_rt.language.stopping import AnswerStream, Channel, Piece
from glyph_rt.language.turn import Turn

__all__ = [
    "JSON_SCHEMA", "PAGES_AHEAD", "REGEX", "AnswerStream", "Channel", "Constraint", "CudaRecorder", "Drafter", "KVSegment",
    "KVShape", "KVTail", "LanguageModel", "Lease", "Past", "Piece", "PromptTemplate", "Quant", "Reading", "Sampler", "Sampling",
    "SegmentStore", "StepLoop", "Turn",
]  # fmt: skip
