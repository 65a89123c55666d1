"""Visual tokens to text: the decoder, its KV memory, prompts and sampling."""

from glyph_rt.language.attention import Past
from glyph_rt.language.drafting import Drafter
from glyph_rt.language.model import LanguageModel
from glyph_rt.language.prompt import Detokenizer, PromptTemplate
from glyph_rt.language.sampling import Sampler, Sampling
from glyph_rt.language.segments import KVSegment, KVShape, KVTail
from glyph_rt.language.turn import Turn, prefill

__all__ = [
    "Detokenizer", "Drafter", "KVSegment", "KVShape", "KVTail", "LanguageModel", "Past", "PromptTemplate", "Sampler", "Sampling",
    "Turn", "prefill",
]  # fmt: skip
