"""The command line: glyph-rt ask | render | serve | doctor | export | build | engines | train-reader."""

from glyph_rt.cli.main import main

__all__ = ["main"]
