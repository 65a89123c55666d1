"""Pages to visual tokens: the vision tower and the encoders that run it."""

from glyph_rt.vision.device import GpuUse
from glyph_rt.vision.encoder import MAX_BATCH, VisionEncoder
from glyph_rt.vision.graph import default_store
from glyph_rt.vision.select import CHOICES, ProbePage, open_encoder

__all__ = ["CHOICES", "MAX_BATCH", "GpuUse", "ProbePage", "VisionEncoder", "default_store", "open_encoder"]
