"""The engine store: plans with signed manifests, published whole or not at all, never larger than its limit.

An engine is code: TensorRT runs what a plan says, and crashes on what it does not expect. So only this box's own builds are loaded, and
everything that can be known about a plan is checked before TensorRT sees a byte of it:

    signature of the manifest ── then the box (TensorRT, GPU, driver) and the model ── then the plan's length and digest

    ROOT/<name>/engine.plan, manifest.json, signature      an entry; it appears by one rename
    ROOT/.part-*, .trash-*                                 being written or removed; swept by the next writer
    ROOT/.lock                                             held while the store changes
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from glyph_rt.durable import sync_folder
from glyph_rt.errors import EngineRefusedError, StoreError
from glyph_rt.memory.limits import GIB
from glyph_rt.vision.graph import default_store
from glyph_rt.vision.manifest import Manifest, Wanted

ENGINES = "tensorrt"  # the engines' folder in the store of exported graphs
PLAN, MANIFEST, SIGNATURE = "engine.plan", "manifest.json", "signature"
DEFAULT_LIMIT = 16 * GIB  # bytes: some ten full-size engines
MAX_MANIFEST = 64 * 1024  # bytes
KEY_BYTES = 32
_CHUNK = 1 << 24  # bytes written at a time


def default_key() -> Path:
    """Where this box's key lives: $XDG_CONFIG_HOME/glyph-rt/engine.key, away from the engines, which may be copied about."""
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "glyph-rt" / "engine.key"


def default_engines() -> Path:
    """Where this box's engines live: beside the exported graphs, in the user's cache."""
    return default_store() / ENGINES


@dataclass(frozen=True)
class Engine:
    """An engine that was checked. `plan` is the very bytes that were hashed: nothing can change between check and use."""

    manifest: Manifest
    plan: memoryview


@dataclass(frozen=True)
class Entry:
    """What lies in the store under one name; `manifest` is None when it cannot be read. Nothing is checked yet."""

    path: Path
    manifest: Manifest | None
    size: int  # bytes
    used: int  # ns since the epoch: when it was last opened or published


class EngineStore:
    """A folder of engines, shared by the processes of one user. Never holds more than `limit` bytes."""

    def __init__(self, root: Path, key: Path | None = None, limit: int = DEFAULT_LIMIT) -> None:
        self.root = root
        self.key = key or default_key()
        self.limit = limit

    def entries(self) -> list[Entry]:
        """Everything in the store, the most recently used first."""
        folders = [p for p in self.root.iterdir() if p.is_dir() and not p.name.startswith(".")] if self.root.is_dir() else []
        return sorted((entry for p in folders if (entry := _entry(p))), key=lambda entry: (-entry.used, entry.path.name))

    def publish(self, manifest: Manifest, plan: memoryview) -> Path:
        """Sign and keep an engine; earlier builds of the same, and the least recently used others, make room.

        Afterwards the entry is there whole, or StoreError is raised and the store is as it was, but for what made room.
        """
        if (manifest.plan_bytes, manifest.plan_digest) != (plan.nbytes, hashlib.sha256(plan).hexdigest()):
            raise StoreError(f"the manifest of {manifest.name} is not about this plan")
        data = manifest.to_bytes()
        signature = _sign(self._own_key(), data)
        size = plan.nbytes + len(data) + len(signature)
        if size > self.limit:
            raise StoreError(f"engine {manifest.name} has {size:,} bytes; the store's limit is {self.limit:,} (--limit)")
        with self._writing():
            self._make_room(size)
            part = Path(tempfile.mkdtemp(prefix=".part-", dir=self.root))
            _write(part / PLAN, plan)
            _write(part / MANIFEST, memoryview(data))
            _write(part / SIGNATURE, memoryview(signature))
            sync_folder(part)
            _touch(part)
            target = self.root / manifest.name
            earlier = [entry for entry in self.entries() if entry.manifest is not None and manifest.supersedes(entry.manifest)]
            for entry in earlier:
                if entry.path == target:  # the very same plan: a folder cannot be renamed over another
                    self._remove(entry)
            part.rename(target)
            sync_folder(self.root)
            for entry in earlier:
                if entry.path != target:
                    self._remove(entry)
        return target

    def open(self, entry: Entry, wanted: Wanted | None = None) -> Engine:
        """Check an entry and read its plan. Raises EngineRefusedError with the reason; without `wanted`, any box and model will do.

        Reasons: unreadable, no-key, signature, foreign-tensorrt, foreign-gpu, foreign-driver, stale, truncated, tampered.
        """
        name = entry.path.name
        try:
            data = _read(entry.path / MANIFEST, MAX_MANIFEST)
            signature = _read(entry.path / SIGNATURE, MAX_MANIFEST)
        except OSError as error:
            raise EngineRefusedError("unreadable", f"engine {name} lacks a readable manifest ({error})") from None
        key = _read_key(self.key)
        if key is None:
            raise EngineRefusedError("no-key", f"this box's key {self.key} is gone, so engine {name} cannot be trusted; build it again")
        if not hmac.compare_digest(signature, _sign(key, data)):
            raise EngineRefusedError("signature", f"engine {name} was not built by this box, or its manifest was changed; build it again")
        try:
            manifest = Manifest.from_bytes(data)
        except ValueError as error:
            raise EngineRefusedError("unreadable", f"engine {name} is of another version of glyph-rt ({error})") from None
        if wanted is not None:
            manifest.check(wanted)
        plan = _read_plan(entry.path / PLAN, manifest)
        _touch(entry.path)
        return Engine(manifest, plan)

    def find(self, wanted: Wanted) -> Engine:
        """The most recently used engine that is what `wanted` says. Raises EngineRefusedError: the first refusal, or "missing"."""
        refusal: EngineRefusedError | None = None
        for entry in self.entries():
            try:
                return self.open(entry, wanted)
            except EngineRefusedError as error:
                refusal = refusal or error
        raise refusal or EngineRefusedError("missing", f"no engine in {self.root}; build one with glyph-rt build")

    def verify(self, entry: Entry) -> EngineRefusedError | None:
        """Why an entry would be refused on any box; None when it is sound. Checking is not using: the order of eviction stays."""
        try:
            self.open(entry)
        except EngineRefusedError as error:
            return error
        os.utime(entry.path, ns=(entry.used, entry.used))
        return None

    def prune(self) -> list[Entry]:
        """Remove what would be refused on any box, then the least recently used until the limit holds the rest."""
        with self._writing():
            doomed = [entry for entry in self.entries() if self.verify(entry) is not None]
            for entry in doomed:
                self._remove(entry)
            return doomed + self._make_room(0)

    def _make_room(self, size: int) -> list[Entry]:
        """Remove the least recently used until `size` bytes more fit."""
        left, removed = self.entries(), []
        while left and sum(entry.size for entry in left) + size > self.limit:
            removed.append(left.pop())
            self._remove(removed[-1])
        return removed

    def _remove(self, entry: Entry) -> None:
        """By a rename first: an entry that is half removed is none."""
        trash = self.root / f".trash-{secrets.token_hex(4)}"
        entry.path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The store's lock; what was left by writers that died is swept first, and what fails below leaves nothing behind."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._sweep()
                try:
                    yield
                finally:
                    self._sweep()
        except OSError as error:
            hint = "free some space, or lower --limit" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see its permissions"
            raise StoreError(f"the engine store {self.root} cannot be written ({error.strerror}); {hint}") from None

    def _sweep(self) -> None:
        for pattern in (".part-*", ".trash-*"):
            for left in self.root.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)

    def _own_key(self) -> bytes:
        """This box's key; made at first use, readable by its user only, and never half there."""
        try:
            if (key := _read_key(self.key)) is not None:
                return key
            self.key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, part = tempfile.mkstemp(prefix=".key-", dir=self.key.parent)  # mode 0600
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, self.key)  # unlike a rename, this never replaces the key of a process that was faster
            except FileExistsError:
                pass
            finally:
                Path(part).unlink()
        except OSError as error:
            raise StoreError(f"this box's key {self.key} cannot be made ({error.strerror})") from None
        key = _read_key(self.key)
        if key is None:
            raise StoreError(f"this box's key {self.key} vanished")
        return key


def _sign(key: bytes, manifest: bytes) -> bytes:
    """HMAC-SHA256, in hex, over the manifest, which holds the plan's digest."""
    return hmac.new(key, b"glyph-rt engine\0" + manifest, hashlib.sha256).hexdigest().encode()


def _read_key(path: Path) -> bytes | None:
    """The key, or None when there is none. Raises StoreError when others can read it, or it is no key."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise StoreError(f"others can read this box's key {path}; delete it and build the engines again")
            key = file.read(KEY_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"this box's key {path} cannot be read ({error.strerror})") from None
    if len(key) != KEY_BYTES:
        raise StoreError(f"{path} is no key of {KEY_BYTES} bytes; delete it and build the engines again")
    return key


def _read_plan(path: Path, manifest: Manifest) -> memoryview:
    """The plan, after its length and digest were found right."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != manifest.plan_bytes:
                raise EngineRefusedError("truncated", f"the plan of {manifest.name} has {size:,} bytes instead of {manifest.plan_bytes:,}")
            plan = memoryview(file.read())
    except OSError as error:
        raise EngineRefusedError("unreadable", f"the plan of {manifest.name} cannot be read ({error.strerror})") from None
    if hashlib.sha256(plan).hexdigest() != manifest.plan_digest:
        raise EngineRefusedError("tampered", f"the plan of {manifest.name} is not the one that was built; build it again")
    return plan


def _entry(path: Path) -> Entry | None:
    """None when it vanished while we looked: another process pruned it."""
    try:
        size = sum(file.stat().st_size for file in path.iterdir())
        used = path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        manifest = Manifest.from_bytes(_read(path / MANIFEST, MAX_MANIFEST))
    except (OSError, ValueError):
        manifest = None
    return Entry(path, manifest, size, used)


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, "too large", str(path))
    return data


def _write(path: Path, data: memoryview) -> None:
    with path.open("wb") as file:
        for start in range(0, len(data), _CHUNK):
            file.write(data[start : start + _CHUNK])
        file.flush()
        os.fsync(file.fileno())


def _touch(path: Path) -> None:
    """Used now, for the order of eviction. In ns: the kernel's own stamps are some ms coarse."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))
