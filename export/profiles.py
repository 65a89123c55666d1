"""Engine profiles: what to build for which box, from engines/profiles/*.yaml or a file of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from glyph_rt.errors import OptionError, ProfileError
from glyph_rt.identity import digest
from glyph_rt.memory.limits import MIB, parse_size
from glyph_rt.vision import MAX_BATCH
from glyph_rt.vision.trt_api import Flavour

PROFILES = Path(__file__).parent.parent / "engines" / "profiles"
BLOCK = 28  # px: pages are whole visual tokens
PATCH = 14  # px
MAX_FILE = 64 * 1024  # bytes; a profile is under one kilobyte


def _size(value: Any) -> int:
    """ "2GiB" to bytes. OptionError is no ValueError, which is what pydantic wants."""
    try:
        return parse_size(str(value))
    except OptionError as error:
        raise ValueError(str(error)) from None


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_kebab)


class Pages(_Part):
    """Pages in one call."""

    min: int = Field(ge=1)
    opt: int
    max: int = Field(le=MAX_BATCH)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min <= self.opt <= self.max:
            raise ValueError("min <= opt <= max must hold")
        return self


Side = Annotated[int, Field(ge=BLOCK, le=BLOCK * 128, multiple_of=BLOCK)]
PageSize = tuple[Side, Side]  # width, height in px


class PageSizes(_Part):
    """Page sizes. Only their patches count, so any page with as few or as many patches fits too."""

    min: PageSize
    opt: PageSize
    max: PageSize

    @property
    def patches(self) -> tuple[int, int, int]:
        """Patches of the smallest, usual and largest page."""
        least, usual, most = (width // PATCH * (height // PATCH) for width, height in (self.min, self.opt, self.max))
        return least, usual, most

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        least, usual, most = self.patches
        if not least <= usual <= most:
            raise ValueError(f"min <= opt <= max must hold in patches; they are {least}, {usual}, {most}")
        return self


class PageShapes(_Part):
    """One optimisation profile of the engine. Scratch memory is for the largest page times the most pages."""

    pages: Pages
    page_size: PageSizes


class Profile(_Part):
    """What to build for one box."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")
    gpu: str = Field(min_length=1)  # its name, for people; engines are held to the name the driver gives
    compute_capability: str = Field(pattern=r"^\d{1,2}\.\d$")  # quoted in YAML, where 9.0 is a number
    tensorrt: Flavour
    flavour: Literal["portable", "modern"]  # of the ONNX graph
    precision: Literal["fp16", "bf16", "fp32", "int8"]
    workspace: Annotated[int, BeforeValidator(_size), Field(ge=MIB)]  # bytes of scratch the builder may plan with
    optimisation_level: int = Field(ge=0, le=5)
    shapes: tuple[PageShapes, ...] = Field(min_length=1, max_length=8)

    @property
    def digest(self) -> str:
        """Identity of everything that makes a difference to the engine."""
        return digest("engine-profile/1", self.model_dump_json(exclude={"name", "gpu"}))


def of_page(profile: Profile, width: int, height: int) -> Profile:
    """The profile for one page of this size in px, and nothing else."""
    one = PageSizes(min=(width, height), opt=(width, height), max=(width, height))
    shapes = PageShapes.model_validate({"pages": Pages(min=1, opt=1, max=1), "page-size": one})
    return profile.model_copy(update={"shapes": (shapes,)})


def profile_names() -> list[str]:
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """A profile by name, or from a YAML file. Raises ProfileError, naming the key that is wrong."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file() or path.name == ".yaml":
        raise ProfileError(f"no engine profile {name!r}; choose one of {', '.join(profile_names())}, or give a .yaml file")
    try:
        if path.stat().st_size > MAX_FILE:
            raise ProfileError(f"{path} is larger than {MAX_FILE} bytes; it is no engine profile")
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProfileError(f"{path} cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise ProfileError(f"{path} must hold keys and values")
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        raise ProfileError(f"{path}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """`shapes.0.pages.max: Input should be less than or equal to 8 (it is 9)`, for each problem."""
    problems = []
    for problem in error.errors(include_url=False):
        key = ".".join(map(str, problem["loc"])) or "the profile"
        given = "" if problem["type"] == "missing" or isinstance(problem["input"], dict) else f" (it is {problem['input']!r})"
        problems.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}{given}")
    return "; ".join(problems)
