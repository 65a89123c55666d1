"""Who may reach a server, who may see what, and what is written down about it: over real sockets, with real certificates."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from glyph_rt import Runtime
from glyph_rt.errors import AddressError, OptionError
from glyph_rt.service import tokens
from glyph_rt.service.access import Access
from glyph_rt.service.address import Address
from glyph_rt.service.auth import Security
from glyph_rt.service.client import Client, ServiceError
from glyph_rt.service.limits import ServiceLimits
from glyph_rt.service.tls import TlsFiles
from glyph_rt.service.tokens import TokenFile, add_token, new_token
from glyph_rt.v1 import documents_pb2
from tests.conftest import TEXT
from tests.service.conftest import PATIENCE_S, Gate, Served, eventually, served, sockets

QUESTION = "What is the value of order number?"
Code = grpc.StatusCode


def refused(call: Callable[[], object]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        call()
    return caught.value


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and the files of what it signed."""

    folder: Path
    made: trustme.CA

    @property
    def file(self) -> Path:
        path = self.folder / "ca.pem"
        self.made.cert_pem.write_to_path(path)
        return path

    def issue(self, name: str, *identities: str, common_name: str | None = None) -> tuple[Path, Path]:
        """Certificate and key."""
        leaf = self.made.issue_cert(*identities, common_name=common_name)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key.write_bytes(leaf.private_key_pem.bytes())
        return certificate, key


def authority(folder: Path) -> Authority:
    folder.mkdir(exist_ok=True)
    return Authority(folder, trustme.CA())


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return authority(tmp_path / "ca")


@dataclass(frozen=True)
class Guarded:
    """A server with tokens, and one for each of two tenants."""

    at: Served
    file: Path
    a: str
    b: str

    def client(self, token: str | None) -> Client:
        return self.at.client(Access(token=token))


@pytest.fixture
def guarded(runtime: Runtime, tmp_path: Path) -> Iterator[Guarded]:
    file = tmp_path / "tokens"
    a, b = add_token(file, "ward-a"), add_token(file, "ward-b")
    limits = ServiceLimits(tenant_documents=2, tenant_streams=1)
    with served(runtime, limits, security=Security(tokens=file), audit=tmp_path / "audit.jsonl") as at:
        yield Guarded(at, file, a, b)


# -- addresses


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "192.168.1.5:50051", "8.8.8.8:1"])
def test_what_other_machines_reach_needs_tls_and_callers_that_are_known(address: str, ca: Authority, tmp_path: Path) -> None:
    certificate, key = ca.issue("server", "127.0.0.1")
    there, tls, token_file = Address.parse(address), TlsFiles(certificate, key), tmp_path / "tokens"
    add_token(token_file, "a")
    with pytest.raises(AddressError, match="TLS"):
        Security(tokens=token_file).check(there)
    with pytest.raises(AddressError, match="callers"):
        Security(tls).check(there)
    Security(tls, token_file).check(there)
    Security(TlsFiles(certificate, key, ca.file)).check(there)
    Security(insecure=True).check(there)
    for local in ("127.0.0.1:1", "[::1]:1", "localhost:1", f"unix:{tmp_path / 's'}"):
        Security().check(Address.parse(local))


def test_serve_refuses_what_is_not_safe_with_one_line(tmp_path: Path) -> None:
    def serve(*options: str) -> str:
        command = [sys.executable, "-c", "from glyph_rt.cli import main; main()", "serve", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "needs TLS" in serve("--address", "0.0.0.0:50051")
    assert "go together" in serve("--tls-cert", "x.pem")
    assert "cannot be read" in serve("--tokens", str(tmp_path / "none"), "--address", "127.0.0.1:0")
    assert "loopback only" in serve("--metrics", "0.0.0.0:9090", "--address", "127.0.0.1:0")


def test_a_client_sends_nothing_to_another_machine_in_the_clear() -> None:
    for address in ("192.0.2.1:50051", "box.example:50051"):
        with pytest.raises(AddressError, match="without TLS"):
            Client(address, Access(token="secret"))
    with pytest.raises(OptionError, match="go together"):
        Access(certificate=Path("x"))


# -- certificates


def test_tls_serves_only_clients_that_speak_it_and_trust_it(runtime: Runtime, ca: Authority, tmp_path: Path) -> None:
    with served(runtime, security=Security(TlsFiles(*ca.issue("server", "127.0.0.1")))) as at:
        with at.client(Access(ca=ca.file)) as client:
            assert client.ask(QUESTION, document=client.read(TEXT).id, max_new_tokens=4).text
        for access in (Access(), Access(ca=authority(tmp_path / "other").file)):
            with at.client(access) as client:
                assert refused(client.runtime).code == Code.UNAVAILABLE


def test_a_clients_certificate_names_its_tenant(runtime: Runtime, ca: Authority, tmp_path: Path) -> None:
    """By its first alternative name, else its common name; without a certificate there is no connection."""
    stranger = authority(tmp_path / "other")
    with served(runtime, security=Security(TlsFiles(*ca.issue("server", "127.0.0.1"), ca.file))) as at:
        one = at.client(Access(ca.file, *ca.issue("one", "ward-a.example", common_name="somebody")))
        two = at.client(Access(ca.file, *ca.issue("two", common_name="ward b")))
        with one, two:
            assert (one.runtime().tenant, two.runtime().tenant) == ("ward-a.example", "ward b")
            identity = one.read(TEXT).id
            assert refused(lambda: two.get(identity)).code == Code.NOT_FOUND
        for access in (Access(ca.file), Access(ca.file, *stranger.issue("three", "ward-a.example"))):
            with at.client(access) as client:
                assert refused(client.runtime).code == Code.UNAVAILABLE


def test_renewed_certificates_are_taken_up_and_broken_ones_are_not(
    runtime: Runtime, ca: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = ca.issue("server", "127.0.0.1")
    later = authority(tmp_path / "later")
    renewed = later.issue("server", "127.0.0.1")
    with served(runtime, security=Security(TlsFiles(certificate, key))) as at:
        certificate.write_bytes(renewed[0].read_bytes())  # its key is still the old one
        with at.client(Access(ca=ca.file)) as client:
            assert client.runtime().version
        assert "stays" in caplog.text
        key.write_bytes(renewed[1].read_bytes())
        with at.client(Access(ca=later.file)) as client:
            assert client.runtime().version
        with at.client(Access(ca=ca.file)) as client:
            assert refused(client.runtime).code == Code.UNAVAILABLE


def test_files_that_are_no_certificates_are_refused_at_the_start(ca: Authority, tmp_path: Path) -> None:
    certificate, key = ca.issue("server", "127.0.0.1")
    noise = tmp_path / "noise"
    noise.write_text("no PEM")
    locked = tmp_path / "locked.key"
    make = ["openssl", "genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x", "-out", str(locked)]
    subprocess.run(make, check=True, capture_output=True)
    for files in ((noise, key), (certificate, noise), (tmp_path / "none", key), (certificate, locked), (certificate, key, noise)):
        with pytest.raises(OptionError):
            TlsFiles(*files).credentials()


# -- tokens


def test_calls_without_a_valid_token_are_refused(guarded: Guarded) -> None:
    head, _, secret = guarded.a.rpartition(".")
    wrong = [None, "", "x", guarded.a + "x", f"{head}.{secret[:-1]}", guarded.a.replace("ward-a", "ward-b"), "glyph-rt.nobody.x", head]
    for token in wrong:
        with guarded.client(token) as client:
            error = refused(client.runtime)
            assert (error.code, error.reason, error.retry_s) == (Code.UNAUTHENTICATED, "UNKNOWN_CALLER", None)
            assert refused(lambda client=client: client.read(TEXT)).code == Code.UNAUTHENTICATED
    with guarded.client(guarded.a) as client:
        assert client.runtime().tenant == "ward-a"
    assert guarded.at.server.desk.telemetry.registry.get_sample_value("glyph_rt_rejections_total", {"reason": "UNKNOWN_CALLER"}) == 16


def test_a_refused_caller_is_not_read_from(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one message of it: a megabyte that nobody may send is not decoded."""
    monkeypatch.setattr(documents_pb2.GetDocumentRequest, "FromString", lambda _: pytest.fail("the request was read"), raising=False)
    with guarded.client(None) as client:
        assert refused(lambda: client.get("0" * 2**20)).code == Code.UNAUTHENTICATED


def test_health_needs_no_token_and_everything_else_does(guarded: Guarded) -> None:
    with grpc.insecure_channel(guarded.at.address) as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S).status
        method = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as caught:
            list(method(iter([b""]), timeout=PATIENCE_S))
        assert caught.value.code() == Code.UNAUTHENTICATED  # type: ignore[attr-defined]


def test_tokens_are_hashed_at_rest_for_their_owner_only(guarded: Guarded) -> None:
    kept = guarded.file.read_text()
    assert guarded.a not in kept and guarded.a.rpartition(".")[2] not in kept and re.search(r"^ward-a sha256:[0-9a-f]{64}$", kept, re.M)
    assert stat.S_IMODE(guarded.file.stat().st_mode) == 0o600
    assert len({new_token("a")[0] for _ in range(100)}) == 100


def test_tokens_are_compared_in_constant_time_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hash of a tenant is compared, by `hmac.compare_digest`, also behind one that fits; an unknown tenant costs a comparison too."""
    file = tmp_path / "tokens"
    first, second = add_token(file, "a"), add_token(file, "a")
    known = TokenFile(file)
    compared: list[bool] = []
    compare = tokens.hmac.compare_digest
    monkeypatch.setattr(tokens.hmac, "compare_digest", lambda x, y: compared.append(True) or compare(x, y))
    for token, tenant, comparisons in (
        (first, "a", 2),
        (second, "a", 2),
        ("glyph-rt.a.x", None, 2),
        ("glyph-rt.b.x", None, 1),
        ("", None, 1),
    ):
        compared.clear()
        assert (known.tenant(token), len(compared)) == (tenant, comparisons)


def test_a_token_is_revoked_while_the_server_runs(guarded: Guarded) -> None:
    with guarded.client(guarded.a) as a, guarded.client(guarded.b) as b:
        assert a.runtime().version and b.runtime().version
        lines = guarded.file.read_text().splitlines()
        guarded.file.write_text("# rotated\n" + lines[1] + "\n")
        assert refused(a.runtime).code == Code.UNAUTHENTICATED and b.runtime().version
        guarded.file.write_text("no token file any more")
        assert b.runtime().version, "a file that cannot be used changes nothing"


@pytest.mark.parametrize("content", ["", "# nobody\n", "ward-a sha256:1234\n", "ward-a plain\n", "Ward sha256:" + "0" * 64, "\xff"])
def test_token_files_that_cannot_be_used_are_refused_at_the_start(content: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(content, "latin-1")
    with pytest.raises(OptionError):
        TokenFile(file)


def test_the_command_makes_tokens_that_a_server_takes(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    command = [sys.executable, "-c", "from glyph_rt.cli import main; main()", "token", "new", "ward-a", "--tokens", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert TokenFile(file).tenant(done.stdout.strip()) == "ward-a"
    command[-3] = "Ward A"
    assert subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_S).returncode == 2


# -- tenants


def test_tenants_see_nothing_of_each_other(guarded: Guarded) -> None:
    """By the very words by which what never was is refused: an id that exists elsewhere tells nothing."""
    with guarded.client(guarded.a) as a, guarded.client(guarded.b) as b:
        mine, theirs = a.read(TEXT).id, b.read(TEXT).id
        assert [d.id for d in a.list()] == [mine] and [d.id for d in b.list()] == [theirs]
        assert a.runtime().documents == b.runtime().documents == 1
        for call in (
            b.get,
            b.delete,
            lambda i: b.ask(QUESTION, document=i).text,
            lambda i: list(b.pages(i)),
        ):
            hidden, absent = refused(lambda call=call: call(mine)), refused(lambda call=call: call("0" * 32))
            assert (hidden.code, hidden.reason, str(hidden)) == (absent.code, absent.reason, str(absent))
            assert hidden.code == Code.NOT_FOUND
        assert a.get(mine).id == mine


def test_tenants_share_no_kv(guarded: Guarded) -> None:
    """Equal texts of one tenant share their KV, whose name is the digest; those of two have neither in common."""
    with guarded.client(guarded.a) as a, guarded.client(guarded.b) as b:
        first, again, other = a.read(TEXT), a.read(TEXT), b.read(TEXT)
        assert first.digest == again.digest != other.digest
        assert guarded.at.runtime.arena.used == first.kv_bytes + other.kv_bytes


def test_page_tokens_do_not_count_other_tenants_documents(guarded: Guarded) -> None:
    with guarded.client(guarded.a) as a, guarded.client(guarded.b) as b:
        made = []
        for text in ("a\n", "b\n"):
            made.append(a.read(text).id)
            b.read(text)
        request = documents_pb2.ListDocumentsRequest(page_size=1)
        page = a._documents.ListDocuments(request, metadata=Access(token=guarded.a).metadata, timeout=PATIENCE_S)
        assert [d.id for d in page.documents] == made[:1] and int(page.next_page_token.removeprefix("after-")) > 1000
        assert [d.id for d in a.list(page_size=1)] == made


def test_one_tenant_cannot_take_all_there_is(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded.client(guarded.a) as a, guarded.client(guarded.b) as b:
        first = a.read("a\n").id
        a.read("b\n")
        full = refused(lambda: a.read("c\n"))
        assert (full.code, full.retry_s) == (Code.RESOURCE_EXHAUSTED, 1.0) and "at most 2 documents" in str(full)
        assert b.read("c\n").pages == 1
        with ThreadPoolExecutor(1) as other, Gate(guarded.at.runtime, monkeypatch).hold(after=3):
            reply = a.ask(QUESTION, document=first, max_new_tokens=500)
            next(iter(reply))
            busy = refused(lambda: a.ask(QUESTION, document=first).text)
            assert busy.code == Code.RESOURCE_EXHAUSTED and "at most 1 readings and answers" in str(busy)
            let_in = other.submit(lambda: b.ask(QUESTION, text="d\n", max_new_tokens=2).text)
            eventually(lambda: guarded.at.server.desk.streams.used == 2)
        assert let_in.result(PATIENCE_S)
        reply.close()
        a.delete(first)
        eventually(lambda: guarded.at.server.desk.streams.used == 0)
        assert a.read("c\n").pages == 1


# -- the audit log


def test_the_audit_log_tells_who_did_what_and_no_text(guarded: Guarded, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    with guarded.client(guarded.a) as a:
        identity = a.read("SECRET: 4711\n" + TEXT).id
        answer = a.ask("What is the SECRET?", document=identity, max_new_tokens=8).text
        refused(lambda: a.get("0" * 32))
        eventually(lambda: "GetDocument" in log.read_text())  # a refusal is told before it is noted
        a.delete(identity)
    eventually(lambda: "DeleteDocument" in log.read_text())
    assert "SECRET" not in log.read_text() and answer not in log.read_text()
    assert guarded.a not in log.read_text() and stat.S_IMODE(log.stat().st_mode) == 0o600
    start, *calls = [json.loads(line) for line in log.read_text().splitlines()]
    assert start["event"] == "start" and {call["tenant"] for call in calls} == {"ward-a"}
    told = [(call["method"], call["code"], call.get("reason"), call.get("document")) for call in calls]
    assert told == [
        ("ReadDocument", "OK", None, identity),
        ("Ask", "OK", None, identity),
        ("GetDocument", "NOT_FOUND", "NO_DOCUMENT", None),
        ("DeleteDocument", "OK", None, identity),
    ]
    assert calls[0]["pages"] == 2 and calls[1]["completion_tokens"] > 0 and calls[0]["peer"].startswith("ipv4:127.0.0.1:")


def test_a_server_that_cannot_keep_records_takes_no_work_until_it_can(runtime: Runtime, tmp_path: Path) -> None:
    """A full disk, by the device that is always full."""
    log = tmp_path / "audit.jsonl"
    with served(runtime, audit=log) as at, at.client() as client:
        identity = client.read("a\n").id
        eventually(lambda: "ReadDocument" in log.read_text())
        before = log.read_text()
        log.unlink()
        log.symlink_to("/dev/full")
        assert client.get(identity).id == identity, "the call that cannot be recorded is the first to show it"
        eventually(lambda: at.server.desk._audit is not None and at.server.desk._audit._lost > 0)
        for call in (lambda: client.get(identity), lambda: client.read("b\n")):
            error = refused(call)
            assert (error.code, error.retry_s) == (Code.UNAVAILABLE, 1.0) and "records" in str(error) and str(tmp_path) not in str(error)
        assert len(at.server.desk.library) == 1
        assert at.server.desk._audit is not None
        at.server.desk._audit._pool.submit(int).result()  # the attempts that these two asked for have been made
        log.unlink()
        log.write_text(before)
        refused(lambda: client.get(identity))  # asks for another attempt
        eventually(lambda: "gap" in log.read_text() and at.server.desk._audit is not None and at.server.desk._audit._lost == 0)
        assert client.get(identity).id == identity
        entries = [json.loads(line) for line in log.read_text().splitlines() if line]
        assert next(entry for entry in entries if entry["event"] == "gap")["lost"] >= 1
    with pytest.raises(OptionError, match="cannot be written"), served(runtime, audit=tmp_path / "none" / "audit"):
        pass


# -- what a serving process does not do

HOOK = (
    "import sys\n"
    "def hook(event, arguments):\n"
    "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.gethostbyaddr', 'socket.sendto',\n"
    "                 'pickle.find_class', 'subprocess.Popen', 'os.system', 'os.posix_spawn', 'os.exec'):\n"
    "        print('FORBIDDEN', event, arguments, file=sys.stderr, flush=True)\n"
    "import glyph_rt.service.server, glyph_rt.runtime\n"
    "sys.addaudithook(hook)\n"
    "from glyph_rt.cli import main; main()\n"
)


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="reads Linux's socket tables")
def test_a_serving_process_connects_nowhere_and_runs_nothing(random_model: Path, ca: Authority, tmp_path: Path) -> None:
    """A whole session under Python's audit hook, and in the kernel's tables, which see what native code opens as well.

    With TLS, tokens, metrics and an audit log, and with proxies and hubs in the environment that it must not talk to.
    """
    certificate, key = ca.issue("server", "127.0.0.1")
    token_file = tmp_path / "tokens"
    token = add_token(token_file, "a")
    files = ["--tls-cert", certificate, "--tls-key", key, "--tokens", token_file, "--audit", tmp_path / "audit", "--model", random_model]
    command = [sys.executable, "-c", HOOK, "serve", "--address", "127.0.0.1:0", "--metrics", "127.0.0.1:0", *map(str, files)]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "https_proxy": "http://192.0.2.1:9", "HF_ENDPOINT": "http://192.0.2.1"}
    environment.pop("HF_HUB_OFFLINE", None)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            lines: list[str] = []
            while not lines or "] serving" not in lines[-1]:
                lines.append(process.stderr.readline())
                assert lines[-1], "".join(lines)
            address = next(line for line in lines if "listening at " in line).split("listening at ")[1].split(",")[0]
            metrics = next(line for line in lines if "metrics at " in line).split("metrics at http://")[1].split("/")[0]
            with Client(address, Access(ca=ca.file, token=token), timeout_s=PATIENCE_S) as client:
                identity = client.read(TEXT).id
                assert client.ask(QUESTION, document=identity, max_new_tokens=4).text
                assert [page.page for page in client.pages(identity)] == [1, 2]
                ports = {line.split()[1].split(":")[1] for line in sockets(process.pid)}
                client.delete(identity)
            listening = {f"{int(place.rpartition(':')[2]):04X}" for place in (address, metrics)}
            assert ports == listening, "everything else came in through a listening port"
            process.terminate()
            rest = process.stderr.read()
            assert process.wait(PATIENCE_S) == 0
            assert "FORBIDDEN" not in "".join(lines) + rest, rest
        finally:
            process.kill()
