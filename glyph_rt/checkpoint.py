"""Checkpoint: a model directory in Hugging Face layout, opened once and shared by the wings.

Each wing reads only its own tensors from the safetensors files, so the vision tower and the decoder of a 20 GB model are
never both in memory unless both are wanted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import Glm4vConfig

from glyph_rt.errors import ModelError
from glyph_rt.identity import digest
from glyph_rt.typeset.style import Style

ARCHITECTURE = "Glm4vForConditionalGeneration"
STYLE_FILE = "style.json"
EMBEDDED_READER = Path(__file__).parent / "reader"


@dataclass(frozen=True)
class TrainedStyle:
    """The page style a model was trained for, from its style.json."""

    style: Style
    atlas_digest: str  # what the atlas of that style hashed to when the model was trained


@dataclass(frozen=True)
class Checkpoint:
    """An opened model directory. Raises ModelError, naming the directory and the file, when it cannot be used."""

    path: Path
    config: Glm4vConfig
    generation: dict[str, Any]  # generation_config.json; empty when the directory has none
    trained_style: TrainedStyle | None
    shards: dict[str, Path] = field(repr=False)  # tensor name -> file

    @classmethod
    def open(cls, path: Path | None = None, weights: bool = True) -> Checkpoint:
        """Open `path`, or the embedded reader. Reads the configuration and the tensor names, not the tensors; without `weights` a
        directory that holds none will do, for what follows from the configuration."""
        path = EMBEDDED_READER if path is None else path
        if not path.is_dir():
            raise ModelError(f"no model directory at {path}; give a local directory in Hugging Face layout")
        config = _read_json(path / "config.json")
        architectures = config.get("architectures") or []
        if ARCHITECTURE not in architectures:
            named = architectures[0] if architectures else config.get("model_type", "no architecture")
            raise ModelError(f"{path} holds {named}; glyph-rt runs {ARCHITECTURE} (the Glyph and GLM-4.1V family)")
        generation = _read_json(path / "generation_config.json") if (path / "generation_config.json").is_file() else {}
        return cls(path, Glm4vConfig(**config), generation, _trained_style(path), _shards(path) if weights else {})

    def tensors(self, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
        """(name without `prefix`, tensor) of every tensor whose name starts with it, one at a time."""
        by_file: dict[Path, list[str]] = {}
        for name, file in self.shards.items():
            if name.startswith(prefix):
                by_file.setdefault(file, []).append(name)
        if not by_file:
            raise ModelError(f"{self.path} has no tensor named {prefix}*")
        for file, names in by_file.items():
            try:
                with safe_open(file, framework="pt") as tensors:
                    for name in names:
                        yield name.removeprefix(prefix), tensors.get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{file} cannot be read ({error})") from None

    @cached_property
    def digest(self) -> str:
        """Identity of the weights and the configuration. Reads every weight file once, at disk speed."""
        fields: list[str] = []
        for file in sorted({self.path / "config.json", *self.shards.values()}):
            with file.open("rb") as stream:
                fields += [file.name, hashlib.file_digest(stream, "sha256").hexdigest()]
        return digest("model/1", *fields)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}; it is not a model directory in Hugging Face layout") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error})") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} must hold a JSON object")
    return data


def _shards(path: Path) -> dict[str, Path]:
    """Tensor name to file: of one model.safetensors, or of the shards its index lists."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        names = _read_json(index).get("weight_map", {})
        missing = sorted({file for file in names.values() if not (path / file).is_file()})
        if missing:
            raise ModelError(f"{path} lacks {missing[0]}, which its index names ({len(missing)} shards missing)")
        return {name: path / file for name, file in names.items()}
    single = path / "model.safetensors"
    if not single.is_file():
        raise ModelError(f"{path} has neither model.safetensors nor model.safetensors.index.json")
    try:
        with safe_open(single, framework="pt") as tensors:
            return dict.fromkeys(tensors.keys(), single)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{single} cannot be read ({error})") from None


def _trained_style(path: Path) -> TrainedStyle | None:
    file = path / STYLE_FILE
    if not file.is_file():
        return None
    data = _read_json(file)
    atlas_digest = data.pop("atlas-digest", None)
    if not isinstance(atlas_digest, str):
        raise ModelError(f'{file} lacks "atlas-digest", the identity of the glyphs the model was trained on')
    return TrainedStyle(Style.from_json(data, str(file)), atlas_digest)
