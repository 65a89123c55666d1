"""
The decode step of small fp32 decoders on a CPU: all layers for a few rows in one call.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


def instructions() -> str:
    """The instruction set that this machine runs it in."""

class KV:
    """Keys and values where they lie."""

    def __init__(self, kv: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None, None), device='cpu')]) -> None:
        """
        fp32 [layers, 2, kv_heads, tokens, head_dim], the tokens of a head behind each other. Not copied; kept alive.
        """

class Model:
    """
    A decoder and its output head. Immutable; may run on any number of threads.
    """

    def __init__(self, *, layers: Sequence[tuple[tuple[Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | Annotated[NDArray[numpy.uint16], dict(shape=(None, None), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]], Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | Annotated[NDArray[numpy.uint16], dict(shape=(None, None), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | Annotated[NDArray[numpy.uint16], dict(shape=(None, None), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | Annotated[NDArray[numpy.uint16], dict(shape=(None, None), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]]], norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], head: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | Annotated[NDArray[numpy.uint16], dict(shape=(None, None), order='C', device='cpu', writable=False)], frequencies: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], axes: Sequence[int], heads: int, kv_heads: int, eps: float) -> None:
        """
        layers: of each (qkv weight, bias), out, gate_up, down, and the norms before and after attention, before and after the MLP. Not copied; kept alive. Weights are fp32, or uint16 where these are the upper halves of floats (bfloat16). frequencies, axes: by how much, and which of, a token's three positions turns each pair of a head.
        """

    def forward(self, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')], positions: Annotated[NDArray[numpy.int64], dict(shape=(3, None), device='cpu', writable=False)], shared: Sequence[tuple[KV, int, int]], spans: Sequence[tuple[KV, int, int, int]]) -> None:
        """
        x [rows, hidden] from embeddings to hidden states, in place, at rope positions [3, rows]. shared: (KV, start, stop), rows [start, stop) see all of it, in this order; spans: (KV, length, start, stop), rows whose keys and values go behind the first `length` tokens of their tail, and who see these and each other. Releases the GIL. A row's result does not depend on the other spans' rows.
        """

    def logits(self, hidden: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], out: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')]) -> None:
        """hidden [rows, hidden] to out [rows, vocabulary]. Releases the GIL."""
