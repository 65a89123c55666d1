"""Visual tokens to text: the decoder, its KV memory, the loop that runs it, prompts and sampling."""

from glyph_rt.language.attention import Past
from glyph_rt.language.batching import PAGES_AHEAD, Reading, StepLoop
from glyph_rt.language.drafting import Drafter
from glyph_rt.language.model import LanguageModel
from glyph_rt.language.prompt import Detokenizer, PromptTemplate
from glyph_rt.language.sampling import Sampler, Sampling
from glyph_rt.language.segment_store import Lease, SegmentStore
from glyph_rt.language.segments import KVSegment, KVShape, KVTail
from glyph_rt.language.turn import Turn

__all__ = [
    "PAGES_AHEAD", "Detokenizer", "Drafter", "KVSegment", "KVShape", "KVTail", "LanguageModel", "Lease", "Past", "PromptTemplate",
    "Reading", "Sampler", "Sampling", "SegmentStore", "StepLoop", "Turn",
]  # fmt: skip
