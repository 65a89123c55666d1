"""What the reader is trained to lower, and its gradient.

Losses: next character of the answers; the character under every cell of a page, read from its visual token; and a
pointer: one attention head learns to look at the visual token that holds the next character.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from glyph_rt.export.reader.alphabet import USER
from glyph_rt.export.reader.muon import matrix_dtype
from glyph_rt.export.reader.network import Reader
from glyph_rt.export.reader.samples import IGNORE, Batch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """Of the losses' parts; that of the next character is 1."""

    character: float = 1.0
    pointer: float = 0.5
    slot: float = 0.5
    value: float = 0.5
    end: float = 2.0  # of the token that ends an answer
    begin: float = 3.0  # of an answer's first character, which takes one of like keys, or says that there is none: four errors of five


def gradients(reader: Reader, batch: Batch, weights: Weights) -> tuple[Sequence[Tensor | None], dict[str, float]]:
    """Of the loss of one batch, by every parameter, and None where it has no part in it; and the loss's parts, by name."""
    device = reader.lm_head.weight.device
    dtype = matrix_dtype(device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        loss, parts = _loss(reader, batch, weights)
    return torch.autograd.grad(loss, list(reader.parameters()), allow_unused=True), parts


def ink(batch: Batch, device: torch.device) -> Tensor:
    """[documents * pages, patches, 196] in 0..1"""
    return torch.from_numpy(batch.patches).to(device).float() / 255


def _loss(reader: Reader, batch: Batch, weights: Weights) -> tuple[Tensor, dict[str, float]]:
    device = reader.lm_head.weight.device

    def tensor(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(device)

    vision, characters = batch.shape.vision, tensor(batch.characters)
    if vision == "only":
        loss = F.cross_entropy(reader.guesses(reader.visual(ink(batch, device))).flatten(0, -2), characters.flatten())
        return loss, {"characters": loss.item()}
    out = reader(ink(batch, device), tensor(batch.tokens), frozen_vision=vision == "frozen")
    labels, cells = tensor(batch.labels), tensor(batch.cells)
    asked, pointed = labels != IGNORE, cells != IGNORE
    answer = F.cross_entropy(out.logits[asked], labels[asked], reduction="none")
    begins = torch.zeros_like(asked)
    for document, answers in enumerate(batch.answers):
        begins[document, [a.start for a in answers]] = True
    by_token = torch.where(labels[asked] == USER, weights.end, torch.where(begins[asked], weights.begin, 1.0))
    # The first pointer finds the visual token; the second reads it again, once the place in it is known.
    pointer = torch.stack([F.cross_entropy(layer[pointed], cells[pointed]) for layer in out.pointers]).mean()
    slot = F.cross_entropy(out.slots[pointed], tensor(batch.slots)[pointed])
    fetched = F.cross_entropy(out.fetched.flatten(0, -2), characters.flatten())
    loss = (answer * by_token).sum() / by_token.sum() + weights.pointer * pointer + weights.slot * slot + weights.value * fetched
    task = "read" if batch.shape.transcribe else "ask"
    parts = {
        f"{task}{batch.shape.pages}": answer.mean().item(),
        f"pointer_{task}{batch.shape.pages}": pointer.item(),
        f"slot_{task}": slot.item(),
        "fetched": fetched.item(),
    }
    if vision == "trained":
        seen = F.cross_entropy(reader.guesses(out.visual).flatten(0, -2), characters.flatten())
        loss, parts["characters"] = loss + weights.character * seen, seen.item()
    return loss, parts
