"""Which TensorRT names our sources use, and which names a TensorRT has.

Run as a program, it writes tensorrt_names.json again, from NVIDIA's bindings wheels (1 MB each, from PyPI). Those import without TensorRT
itself when the few functions they need are satisfied by stub libraries: every class, enum, and signature is then real,
and nothing can be created.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from glyph_rt.vision import trt_api

TABLE = Path(__file__).with_name("tensorrt_names.json")
WHEELS = {"10.3.0": "tensorrt_cu12_bindings", "10.16.1.11": "tensorrt_cu13_bindings", "11.4.0.106": "tensorrt_cu13_bindings"}
RTX_ONLY = "RtxBuilderConfig"  # our name for what only TensorRT for RTX's IBuilderConfig has
OURS = {"Progress", "Recorder", "Protocol", RTX_ONLY}  # protocols that are no TensorRT class

# name -> the parameter names of each overload, or None for what is not called; absent: the name does not exist.
Names = dict[str, list[list[str]] | None]

PROBE = r"""
import importlib, json, re, sys
sys.path.insert(0, sys.argv[2])
module = importlib.import_module(sys.argv[1])
found = {}
for name in json.load(sys.stdin):
    thing = module
    try:
        for part in name.split("."):
            thing = getattr(thing, part)
    except AttributeError:
        continue
    signatures = re.findall(r"^(?:\d+\. )?" + re.escape(name.split(".")[-1]) + r"\((self: [^\n]*)\) ->", thing.__doc__ or "", re.M)
    called = callable(thing) and not isinstance(thing, type) and signatures
    found[name] = [re.findall(r"(?:^|, )(\w+): ", s)[1:] for s in signatures] if called else None
print(json.dumps(found))
"""


def wanted(rtx: bool = False) -> dict[str, list[str] | None]:
    """Every TensorRT name trt_api.py uses, with its parameter names where it is a method."""
    names: dict[str, list[str] | None] = dict.fromkeys(_dotted(Path(trt_api.__file__).read_text()))
    for protocol in vars(trt_api).values():
        if isinstance(protocol, type) and getattr(protocol, "_is_protocol", False) and protocol.__name__ not in OURS:
            names |= _members(protocol, protocol.__name__)
    if rtx:
        names |= _members(getattr(trt_api, RTX_ONLY), "IBuilderConfig") | {"ComputeCapability.SM89": None}
    return names


def missing(used: dict[str, list[str] | None], has: Names) -> list[str]:
    """What is used and not there: names, and methods no overload of which takes these parameters, in this order."""
    return [
        name if parameters is None else f"{name}({', '.join(parameters)})"
        for name, parameters in used.items()
        if name not in has or (parameters is not None and not any(o[: len(parameters)] == parameters for o in has[name] or []))
    ]


def names_of(module: str, names: list[str], folder: Path | None = None) -> Names:
    """Ask a bindings module, in a process of its own: it may pull in libraries, or crash."""
    run = [sys.executable, "-W", "ignore", "-c", PROBE, module, str(folder or "")]
    done = subprocess.run(run, input=json.dumps(names), capture_output=True, text=True, check=True)
    found: Names = json.loads(done.stdout)
    return found


def bindings(version: str, cache: Path) -> Path:
    """The folder of a version's importable bindings, downloading the wheel and compiling the stubs as needed."""
    folder = cache / version
    binary = folder / "tensorrt_bindings" / "tensorrt.so"
    if not binary.is_file():
        package = f"{WHEELS[version]}=={version}"
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", cache, package], check=True, capture_output=True)
        wheel = next(cache.glob(f"{WHEELS[version]}-{version}-*.whl"))
        zipfile.ZipFile(wheel).extractall(folder)
    dynamic = subprocess.run(["readelf", "-d", binary], capture_output=True, text=True, check=True).stdout
    symbols = subprocess.run(["nm", "-D", "--undefined-only", binary], capture_output=True, text=True, check=True).stdout
    factories = re.findall(r" U ((?:create|get|init)[A-Z]\w*)$", symbols, re.M)
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in factories))
    for library in re.findall(r"NEEDED.*\[(libnv[^\]]+)\]", dynamic):
        stub = binary.parent / library
        if not stub.exists():
            subprocess.run(["gcc", "-shared", "-fPIC", "-o", stub, source, f"-Wl,-soname,{library}"], check=True)
    return folder


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "glyph-rt" / "tensorrt-bindings"


def table() -> dict[str, Names]:
    """What tensorrt_names.json should say: of every name we use, what each version has."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    return {version: names_of("tensorrt_bindings", sorted(wanted()), bindings(version, cache)) for version in WHEELS}


def _members(protocol: type, name: str) -> dict[str, list[str] | None]:
    methods = {k: v for k, v in vars(protocol).items() if not k.startswith("_")}
    members = dict.fromkeys(inspect.get_annotations(protocol)) | methods
    return {f"{name}.{k}": list(inspect.signature(v).parameters)[1:] if inspect.isfunction(v) else None for k, v in members.items()}


def _dotted(source: str) -> list[str]:
    """Every `self.module.A.B` in a source, `B` overridden in `class C(self.module.A)`, and uses of a local name for such a chain."""
    tree = ast.parse(source)
    local: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (chain := _chain(node.value, {})):
            local[node.targets[0].id] = chain
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (chain := _chain(node, local)):
            found.append(chain)
        if isinstance(node, ast.ClassDef):
            bases = [chain for base in node.bases if (chain := _chain(base, local))]
            methods = [n.name for n in node.body if isinstance(n, ast.FunctionDef) and n.name != "__init__"]
            found += [f"{base}.{method}" for base in bases for method in methods]
    return found


def _chain(node: ast.AST, local: dict[str, str]) -> str | None:
    """`A.B` of `self.module.A.B` or `module.A.B`."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or not parts:
        return None
    whole = [*local.get(node.id, node.id).split("."), *reversed(parts)]
    if node.id in local:
        return ".".join(whole)
    stem = whole[2:] if whole[:2] == ["self", "module"] else whole[1:] if whole[0] == "module" else []
    return ".".join(stem) or None


def to_json(names: dict[str, Any]) -> str:
    """One line a name, so that a difference is readable."""
    compact = {version: {name: json.dumps(overloads) for name, overloads in sorted(found.items())} for version, found in names.items()}
    return json.dumps(compact, indent=1) + "\n"


if __name__ == "__main__":
    TABLE.write_text(to_json(table()))
