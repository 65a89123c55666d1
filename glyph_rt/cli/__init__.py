"""The command line: glyph-rt ask | render | doctor | export | train-reader."""

from glyph_rt.cli.main import main

__all__ = ["main"]
