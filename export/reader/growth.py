"""A trained network in a larger one that computes the same function: what was learned is not learned again.

Copies of a key-value head, one for each query head that shared it, give every head what it had; a new layer adds nothing until its output
norms, which start at zero, have moved. After Net2Net (arXiv:1511.05641).
"""

from __future__ import annotations

import torch
from glyph_rt.export.reader.network import Reader
from glyph_rt.export.reader.size import Size
from torch import Tensor


def grown(reader: Reader, state: dict[str, Tensor], size: Size) -> dict[str, Tensor]:
    """The state of a `size` network as one of `reader`, which may have more key-value heads, and one layer more, before the last.

    Raises ValueError if they differ in anything else.
    """
    new = reader.size
    if vars(new) | {"layers": size.layers, "kv_heads": size.kv_heads} != vars(size) or new.layers - size.layers not in (0, 1):
        raise ValueError(f"a {size} does not grow into a {new}")
    inserted = size.layers - 1 if new.layers > size.layers else None
    out: dict[str, Tensor] = {}
    for name, own in reader.state_dict().items():
        old = name
        if name.startswith("layers."):
            _, number, rest = name.split(".", 2)
            if int(number) == inserted:
                out[name] = torch.zeros_like(own) if rest in ("post_self_attn_layernorm.weight", "post_mlp_layernorm.weight") else own
                continue
            if inserted is not None and int(number) > inserted:
                old = f"layers.{inserted}.{rest}"
        weight = state[old]
        if ".k_proj." in name or ".v_proj." in name:
            copies = new.kv_heads // size.kv_heads
            weight = weight.unflatten(0, (size.kv_heads, -1)).repeat_interleave(copies, 0).flatten(0, 1)
        out[name] = weight
    return out
