"""Writes glyph_rt/v1 from the .proto files: `make proto`, or `python proto/generate.py [ROOT]` to write below another folder.

`--baseline` also renews proto/baseline.binpb, the descriptors that later changes are held to. Do that when a field was added;
a change that tests/service/test_contract.py calls breaking belongs into a new package, glyph_rt.v2.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).parent
SOURCES = ("documents", "answers", "runtime")
BASELINE = PROTO / "baseline.binpb"
MARK = '"""The contract with clients, generated from proto/ by `make proto`: do not edit."""\n'


def generate(root: Path) -> None:
    """Write glyph_rt/v1 below `root`. Raises RuntimeError when a .proto file does not compile."""
    root.mkdir(parents=True, exist_ok=True)
    _protoc(f"--python_out={root}", f"--pyi_out={root}", f"--grpc_python_out={root}")
    (root / "glyph_rt" / "v1" / "__init__.py").write_text(MARK)


def write_descriptors(file: Path, *, comments: bool = False) -> None:
    """Write the contract as a FileDescriptorSet, with the comments of the .proto files if asked."""
    _protoc(f"--descriptor_set_out={file}", "--include_imports", *(["--include_source_info"] if comments else []))


def _protoc(*options: str) -> None:
    includes = [f"-I{PROTO}", f"-I{files('grpc_tools') / '_proto'}"]
    if protoc.main(["protoc", *includes, *options, *(f"glyph_rt/v1/{name}.proto" for name in SOURCES)]) != 0:
        raise RuntimeError("protoc failed; its messages are above")


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--baseline"]
    generate(Path(arguments[0]) if arguments else PROTO.parent)
    if "--baseline" in sys.argv:
        write_descriptors(BASELINE)
