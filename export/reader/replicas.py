"""Gradients of several batches at once, each by a process of its own, over weights that all of them share.

Threads of one process would wait for each other's Python: two of them kept two cores two thirds busy.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

import torch
import torch.multiprocessing as processes
from glyph_rt.export.reader.losses import Weights, gradients
from glyph_rt.export.reader.network import Reader
from glyph_rt.export.reader.samples import Batch
from torch import Tensor

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


class Replicas:
    """`count` batches are computed side by side: one here, the others by processes.

    reader: its parameters move into shared memory, where an optimiser has to change them in place. compiled: fuse what the layers do
    besides products, in each process.
    """

    def __init__(self, reader: Reader, weights: Weights, count: int, compiled: bool) -> None:
        self._reader, self._weights = reader, weights
        self._others: list[tuple[Connection, Sequence[Tensor]]] = []
        self._processes = []
        if count > 1:
            if reader.lm_head.weight.device.type != "cpu":
                raise ValueError(f"{count} batches side by side are for CPUs; a GPU wants one, of a larger scale")
            reader.share_memory()
            spawn = processes.get_context("spawn")
            for _ in range(count - 1):
                ours, theirs = spawn.Pipe()
                room = [torch.zeros_like(parameter).share_memory_() for parameter in reader.parameters()]
                process = spawn.Process(target=_serve, args=(theirs, reader, room, weights, compiled), daemon=True)
                process.start()
                theirs.close()
                self._others.append((ours, room))
                self._processes.append(process)
        _prepare(reader, compiled)

    def mean_gradients(self, batches: Sequence[Batch]) -> tuple[list[Tensor | None], list[dict[str, float]]]:
        """Of the mean loss of at most `count` batches, by every parameter; and the loss's parts, by batch.

        Raises ValueError for more batches, and EOFError if a process has ended.
        """
        if len(batches) > 1 + len(self._others):
            raise ValueError(f"{len(batches)} batches for {1 + len(self._others)} replicas")
        mine, *others = batches
        for (pipe, _), batch in zip(self._others, others, strict=False):
            pipe.send(batch)
        here, parts = gradients(self._reader, mine, self._weights)
        of_all, told = [list(here)], [parts]
        for (pipe, room), _ in zip(self._others, others, strict=False):
            there, parts = pipe.recv()
            of_all.append([gradient if has else None for gradient, has in zip(room, there, strict=True)])
            told.append(parts)
        return [_mean(found, len(batches)) for found in zip(*of_all, strict=True)], told

    def close(self) -> None:
        for pipe, _ in self._others:
            pipe.close()
        for process in self._processes:
            process.join()
        self._others, self._processes = [], []


def _mean(gradients: Sequence[Tensor | None], count: int) -> Tensor | None:
    there = [gradient for gradient in gradients if gradient is not None]
    return torch.stack(there).sum(0) / count if there else None


def _serve(pipe: Connection, reader: Reader, room: Sequence[Tensor], weights: Weights, compiled: bool) -> None:
    """The life of a process: batch by batch, until the other end is closed."""
    _prepare(reader, compiled)
    while True:
        try:
            batch = pipe.recv()
        except EOFError:
            return
        found, parts = gradients(reader, batch, weights)
        for place, gradient in zip(room, found, strict=True):
            if gradient is not None:
                place.copy_(gradient)
        pipe.send(([gradient is not None for gradient in found], parts))


def _prepare(reader: Reader, compiled: bool) -> None:
    reader.train()
    _keep_memory()
    # torch's own threads would wait for each other at every operation, which costs most of the time on a machine that others use too.
    torch.set_num_threads(1)
    if compiled:
        # One compilation for every shape of batch; beyond torch's limit of eight, layers would run as they are.
        torch._dynamo.config.recompile_limit = 64
        for layer in (*reader.layers, *reader.visual.blocks):
            layer.compile(dynamic=False)


def _keep_memory() -> None:
    """Have the C library keep what tensors give back, and hand it out again.

    glibc gives it to the kernel instead, which fills every page anew with zeros for the next tensor: a sixth of a step.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
