"""The gRPC service: a Runtime behind glyph_rt.v1, with limits, documents that are kept, and an orderly end.

Nothing imports this package but the command line; it knows `runtime` and what lies below.
"""
