"""The engine store: what it gives back is what was built here, for this box; what is not is refused, with the reason."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt.errors import EngineRefusedError, StoreError
from glyph_rt.vision import store as store_module
from glyph_rt.vision.gpu import Gpu
from glyph_rt.vision.manifest import Manifest, Wanted
from glyph_rt.vision.store import MANIFEST, PLAN, SIGNATURE, EngineStore

ADA = Gpu("NVIDIA GeForce RTX 4090 D", "8.9", "580.65.06")
PLAN_BYTES = b"a plan" * 1000


def manifest(plan: bytes = PLAN_BYTES, **changes: object) -> Manifest:
    sound = Manifest(
        model_digest="m" * 64,
        onnx_digest="o" * 64,
        tensorrt="tensorrt",
        version="10.16.1.11",
        gpu=ADA.name,
        compute_capability=ADA.compute_capability,
        driver=ADA.driver,
        profile="rtx-4090d",
        profile_digest="p" * 64,
        flavour="modern",
        precision="fp16",
        colour=False,
        plan_digest=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        created="2026-11-21T12:00:00+00:00",
        fused=24,
        depth=24,
        build_seconds=11.0,
        scratch_bytes=1 << 20,
        parity={"cosine": 0.9999},
    )
    return dataclasses.replace(sound, **changes)  # type: ignore[arg-type]


def wanted(**changes: object) -> Wanted:
    return dataclasses.replace(Wanted("m" * 64, "o" * 64, "tensorrt", "10.16.1.11", ADA), **changes)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines", tmp_path / "config" / "engine.key")


@pytest.fixture
def entry(store: EngineStore) -> Path:
    return store.publish(manifest(), memoryview(PLAN_BYTES))


def reason(store: EngineStore, **changes: object) -> str:
    with pytest.raises(EngineRefusedError) as caught:
        store.find(wanted(**changes))
    assert "\n" not in str(caught.value) and len(str(caught.value)) > 20
    return caught.value.reason


def test_what_is_published_is_found_byte_for_byte(store: EngineStore, entry: Path) -> None:
    engine = store.find(wanted())
    assert engine.plan == PLAN_BYTES
    assert engine.manifest == manifest()
    assert sorted(p.name for p in entry.iterdir()) == [PLAN, MANIFEST, SIGNATURE]
    assert store.verify(store.entries()[0]) is None


def test_the_key_is_this_users_alone(store: EngineStore, entry: Path) -> None:
    assert store.key.stat().st_mode & 0o777 == 0o600
    key = store.key.read_bytes()
    store.publish(manifest(version="11.4"), memoryview(PLAN_BYTES))
    assert store.key.read_bytes() == key
    store.key.chmod(0o644)
    with pytest.raises(StoreError, match="others can read"):
        store.find(wanted())


def test_an_empty_store_has_nothing(store: EngineStore) -> None:
    assert store.entries() == []
    assert reason(store) == "missing"
    assert not store.root.exists()  # looking makes nothing
    assert store.prune() == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gpu": Gpu("NVIDIA GeForce RTX 4090", "8.9", ADA.driver)}, "foreign-gpu"),
        ({"gpu": Gpu("Orin", "8.7", ADA.driver)}, "foreign-gpu"),
        ({"gpu": Gpu(ADA.name, "8.9", "575.51.03")}, "foreign-driver"),
        ({"version": "10.16.2.10"}, "foreign-tensorrt"),
        ({"tensorrt": "tensorrt-rtx"}, "foreign-tensorrt"),
        ({"onnx_digest": "0" * 64}, "stale"),
        ({"model_digest": "0" * 64}, "stale"),
    ],
)
def test_an_engine_for_another_box_or_model_is_refused(store: EngineStore, entry: Path, changes: dict[str, object], why: str) -> None:
    assert reason(store, **changes) == why


def damaged(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path, EngineStore], None]:
    return lambda entry, _: void((entry / name).write_bytes(change((entry / name).read_bytes())))


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]])


def void(_: object) -> None: ...


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (damaged(PLAN, lambda data: data[:-1]), "truncated"),
        (damaged(PLAN, lambda data: b""), "truncated"),
        (damaged(PLAN, lambda data: data + b"x"), "truncated"),
        (damaged(PLAN, flipped(3000)), "tampered"),
        (damaged(MANIFEST, flipped(40)), "signature"),
        (damaged(MANIFEST, lambda data: data.replace(b"580.65.06", b"999.99.99")), "signature"),
        (damaged(MANIFEST, lambda data: b" " * 100_000), "unreadable"),
        (damaged(MANIFEST, lambda data: b""), "signature"),
        (damaged(SIGNATURE, flipped(0)), "signature"),
        (damaged(SIGNATURE, lambda data: b""), "signature"),
        (lambda entry, _: (entry / PLAN).unlink(), "unreadable"),
        (lambda entry, _: (entry / MANIFEST).unlink(), "unreadable"),
        (lambda entry, _: (entry / SIGNATURE).unlink(), "unreadable"),
        (lambda _, store: store.key.unlink(), "no-key"),
        (lambda _, store: void(store.key.write_bytes(b"k" * 32)), "signature"),
    ],
)
def test_a_damaged_entry_is_refused_and_pruned(
    store: EngineStore, entry: Path, damage: Callable[[Path, EngineStore], None], why: str
) -> None:
    damage(entry, store)
    assert reason(store) == why
    refusal = store.verify(store.entries()[0])
    assert refusal is not None and refusal.reason == why
    assert [e.path for e in store.prune()] == [entry]
    assert store.entries() == []


@settings(max_examples=60, deadline=None)
@given(which=st.sampled_from([PLAN, MANIFEST, SIGNATURE]), position=st.floats(0, 1, exclude_max=True), flips=st.integers(1, 255))
def test_no_changed_byte_anywhere_gets_through(which: str, position: float, flips: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = EngineStore(Path(folder) / "engines", Path(folder) / "key")
        file = store.publish(manifest(), memoryview(PLAN_BYTES)) / which
        data = bytearray(file.read_bytes())
        data[int(position * len(data))] ^= flips
        file.write_bytes(data)
        assert reason(store) in ("tampered", "signature")


def test_a_manifest_of_another_schema_is_refused_even_when_signed(store: EngineStore, entry: Path) -> None:
    data = (entry / MANIFEST).read_bytes().replace(b'"fused": 24', b'"fused": "24"')
    (entry / MANIFEST).write_bytes(data)
    (entry / SIGNATURE).write_bytes(store_module._sign(store.key.read_bytes(), data))
    assert reason(store) == "unreadable"


def test_a_sound_engine_is_found_past_a_broken_one(store: EngineStore, entry: Path) -> None:
    other = store.publish(manifest(driver="575.51.03"), memoryview(PLAN_BYTES))
    (other / PLAN).write_bytes(b"broken")
    assert store.find(wanted()).plan == PLAN_BYTES


def test_only_tensorrt_for_rtx_builds_ahead_of_time(store: EngineStore) -> None:
    store.publish(manifest(tensorrt="tensorrt-rtx", gpu="any", driver="any"), memoryview(PLAN_BYTES))
    assert store.find(wanted(tensorrt="tensorrt-rtx")).plan == PLAN_BYTES
    assert reason(store, tensorrt="tensorrt-rtx", gpu=Gpu("NVIDIA GeForce RTX 5090", "12.0", ADA.driver)) == "foreign-gpu"
    shutil.rmtree(store.root)
    store.publish(manifest(gpu="any", driver="any"), memoryview(PLAN_BYTES))
    assert reason(store) == "foreign-gpu"


def test_a_rebuild_replaces_what_it_rebuilds_and_nothing_else(store: EngineStore, entry: Path) -> None:
    other = store.publish(manifest(precision="fp16", version="11.4"), memoryview(PLAN_BYTES))
    assert store.publish(manifest(), memoryview(PLAN_BYTES)) == entry  # the very same plan
    again = store.publish(manifest(b"another plan"), memoryview(b"another plan"))
    assert {e.path for e in store.entries()} == {other, again}


def test_a_manifest_must_be_about_its_plan(store: EngineStore) -> None:
    with pytest.raises(StoreError, match="not about this plan"):
        store.publish(manifest(), memoryview(b"another plan"))


def test_an_engine_larger_than_the_store_is_refused(store: EngineStore) -> None:
    store.limit = 5000
    with pytest.raises(StoreError, match="limit is 5,000"):
        store.publish(manifest(), memoryview(PLAN_BYTES))
    assert store.entries() == []


def test_no_space_leaves_the_store_as_it_was(store: EngineStore, entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = store_module._write

    def full(path: Path, data: memoryview) -> None:
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "_write", full)
    with pytest.raises(StoreError, match=r"No space left on device.*free some space"):
        store.publish(manifest(b"another plan"), memoryview(b"another plan"))
    assert [e.path for e in store.entries()] == [entry]
    assert sorted(p.name for p in store.root.iterdir()) == [".lock", entry.name]


def test_a_folder_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be"):
        EngineStore(tmp_path / "file" / "engines", tmp_path / "key").publish(manifest(), memoryview(PLAN_BYTES))
    with pytest.raises(StoreError, match="cannot be read"):
        EngineStore(tmp_path / "engines", tmp_path / "file" / "key").publish(manifest(), memoryview(PLAN_BYTES))


STEPS = 12  # calls of fsync and rename in one publish, and then some


@pytest.mark.parametrize("step", range(STEPS))
def test_killed_at_any_step_no_half_entry_is_left(store: EngineStore, entry: Path, step: int) -> None:
    """The writer is killed for real before each of its steps that reach the disk; the reader sees the old engine or the new one."""
    new = b"another plan"
    child = os.fork()
    if child == 0:
        _die_at(step)
        store.publish(manifest(new), memoryview(new))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or step >= 6
    found = store.find(wanted()).plan
    assert found in (PLAN_BYTES, new)
    assert all(store.verify(e) is None for e in store.entries())
    store.publish(manifest(new), memoryview(new))  # and the next writer sweeps what is left
    assert len(list(store.root.iterdir())) == 2  # the entry and the lock


def _die_at(step: int) -> None:
    """In this process, kill it before its `step`th fsync or rename."""
    left = [step]

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object) -> object:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*arguments)

        return wrapper

    os.fsync = counted(os.fsync)  # type: ignore[assignment]
    Path.rename = counted(Path.rename)  # type: ignore[assignment, method-assign]


Operation = tuple[str, int, int]  # what, which engine, its size


@settings(max_examples=40, deadline=None)
@given(
    limit=st.integers(2_000, 12_000),
    operations=st.lists(st.tuples(st.sampled_from(["publish", "open", "prune"]), st.integers(0, 5), st.integers(0, 5_000)), max_size=12),
)
def test_the_store_never_exceeds_its_limit_and_drops_the_least_recently_used(limit: int, operations: list[Operation]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = EngineStore(Path(folder) / "engines", Path(folder) / "key", limit)
        order: list[str] = []  # names, the most recently used last
        for what, which, size in operations:
            plan = bytes(size)
            if what == "publish":
                one = manifest(plan, version=f"10.16.{which}")
                try:
                    store.publish(one, memoryview(plan))
                except StoreError as error:
                    assert "limit" in str(error) and size + 1000 > limit - 1000
                    continue
                order = [n for n in order if n != one.name and n.rpartition("-")[0] != one.name.rpartition("-")[0]] + [one.name]
            elif what == "open" and store.entries():
                entry = store.entries()[which % len(store.entries())]
                store.open(entry)
                order = [n for n in order if n != entry.path.name] + [entry.path.name]
            elif what == "prune":
                store.prune()
            assert sum(p.stat().st_size for p in store.root.rglob("*") if p.is_file()) <= limit
            kept = [entry.path.name for entry in reversed(store.entries())]
            assert kept == order[len(order) - len(kept) :]  # the tail of the order: only the least recently used have gone
            order = kept
