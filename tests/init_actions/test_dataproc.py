"""The init action, run as root on a node that is a set of namespaces: everything real but the kernel's NFS client."""

from __future__ import annotations

import hashlib
import io
import json
import ssl
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mayfly.staging.nodefiles import make_node_files
from mayfly.staging.stores import Store, open_store
from scripts.cloud.object_store import ObjectStore
from tests.emulators.dataproc.nodes import missing
from tests.emulators.dataproc.nodes.metadata import TOKEN, Instance, MetadataServer
from tests.emulators.dataproc.nodes.namespaces import METADATA, Entry, Farm, Node
from tests.emulators.dataproc.nodes.relay import Relay

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = "mayfly-flights-0123456789"


def packed(**files: str) -> tuple[bytes, str]:
    """An environment as small as can be, and its checksum: its Python is a link to the node's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        link = tarfile.TarInfo("bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, "/usr/bin/python3"
        tar.addfile(link)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
    return buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest()


@dataclass
class Ran:
    code: int
    output: str

    @property
    def reason(self) -> str:
        """The one line that a failed init action ends with."""
        return self.output.rstrip().splitlines()[-1]


@dataclass
class Bench:
    """A cluster of one node, its metadata server, and a staging store that it reaches as this host does."""

    farm: Farm
    metadata: MetadataServer
    store: ObjectStore
    bucket: str
    folder: Path
    relays: list[Relay] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    def node(self, *, role: str = "Worker", **attributes: str) -> Node:
        name = f"{CLUSTER}-w-{len(self.nodes)}"
        address = self.farm.address()
        node = self.farm.node(name, address)
        self.nodes.append(node)
        self.relays.append(Relay(node.listen("127.0.0.1", self.store.port), ("127.0.0.1", self.store.port)))
        self.describe(node, **{"dataproc-role": role}, **attributes)
        script = make_node_files(ROOT)[0][1]
        hosts = f"127.0.0.1 localhost\n{METADATA} metadata.google.internal\n"
        node.put({"/init.sh": Entry(content=script, mode=0o755), "/etc/hosts": Entry(content=hosts)})
        return node

    def describe(self, node: Node, *, preemptible: bool = False, **attributes: str) -> None:
        """What the metadata server says of the node from now on."""
        given = {"mayfly-staging": f"{self.bucket}/stage", "mayfly-cluster": CLUSTER}
        self.metadata.add(
            Instance(
                name=node.name,
                hostname=node.name,
                id="1",
                address=node.address,
                zone="z",
                project="p",
                machine_type="m",
                preemptible=preemptible,
                service_account="sa@p",
                attributes=given | attributes,
            )
        )

    @property
    def staging(self) -> Store:
        return open_store(f"{self.bucket}/stage")

    def run(self, node: Node, **env: str) -> Ran:
        output = self.folder / f"{node.name}.log"
        output.unlink(missing_ok=True)
        process = node.start(["/init.sh"], output=output, env={"STORAGE_EMULATOR_HOST": self.store.url} | env)
        return Ran(process.wait(240), output.read_text())

    def evidence(self, node: Node) -> dict[str, Any]:
        found = self.staging.get(f"runs/{CLUSTER}/nodes/{node.name}.json")
        assert found is not None
        return dict(json.loads(found))

    def environment(self, data: bytes, sha256: str) -> dict[str, str]:
        """Uploads it; the metadata that names it."""
        path = f"envs/abc-{sha256[:8]}.tar.gz"
        self.staging.create(path, data)
        return {"mayfly-environment": path, "mayfly-environment-sha256": sha256}


@pytest.fixture(scope="module")
def benches() -> Iterator[Farm]:
    if why := missing():
        pytest.skip(why)
    farm = Farm()
    yield farm
    farm.end()


@pytest.fixture(scope="module")
def metadata(benches: Farm) -> Iterator[MetadataServer]:
    server = MetadataServer(benches.listen(METADATA, 80))
    yield server
    server.close()


@pytest.fixture
def bench(
    benches: Farm, metadata: MetadataServer, object_store: ObjectStore, bucket: str, tmp_path: Path
) -> Iterator[Bench]:
    bench = Bench(benches, metadata, object_store, bucket, tmp_path)
    yield bench
    for node in bench.nodes:
        node.kill()
    for relay in bench.relays:
        relay.close()


def share(mount: str, export: str, server: str = "", options: str = "") -> dict[str, str]:
    return {"mount": mount, "export": export, "server": server, "options": options}


def test_a_node_becomes_ready_and_stays_so(bench: Bench) -> None:
    shares = [share("/shared/in put", "/srv/data")]
    node = bench.node(**bench.environment(*packed(extra="first")), **{"mayfly-shares": json.dumps(shares)})
    node.run("mkdir", "-p", "/srv/data", "/mnt/1")
    node.put({"/srv/data/hello": Entry(content="there")})
    for _ in range(2):  # idempotent
        ran = bench.run(node)
        assert ran.code == 0, ran.output
        assert node.read("/opt/mayfly/env/extra") == "first"
        assert node.read("/shared/in put/hello") == "there"
        ready = json.loads(node.read("/opt/mayfly/ready.json"))
        assert (ready["spill"], ready["shares"]) == ("/mnt/1/mayfly", ["/shared/in put"])
        assert (ready["notice"], ready["dashboard"]) == ("", 0), "it stays, and is no master"
        evidence = bench.evidence(node)
        assert (evidence["ok"], evidence["reason"], evidence["role"]) == (True, "", "Worker")
        assert evidence["node"] == node.name
        assert evidence["seconds"] >= 0
        assert any("ready" in line for line in evidence["tail"])
    assert "the environment is there" in ran.output and "is mounted" in ran.output
    assert node.run("grep", "-c", " /shared/in", "/proc/self/mounts").strip() == "1"
    assert sorted(node.run("ls", "/opt/mayfly").split()) == [
        *("env", "env.sha256", "evidence.json", "get.log", "ready.json", "setup.log", "tar.log"),
    ]
    # Anybody may run what it holds, and use the spill folder.
    node.run("/opt/mayfly/env/bin/python3", "-c", "open('/mnt/1/mayfly/x', 'w')", user=(65534, 65534))


def test_another_environment_takes_the_place_of_the_first(bench: Bench) -> None:
    node = bench.node(**bench.environment(*packed(extra="first")))
    assert bench.run(node).code == 0
    bench.describe(node, **bench.environment(*packed(other="second")))
    ran = bench.run(node)
    assert ran.code == 0, ran.output
    assert sorted(node.run("ls", "/opt/mayfly/env").split()) == ["bin", "other"]


def test_no_environment_and_a_local_disk_of_yarn_on_a_node_that_may_vanish(bench: Bench) -> None:
    node = bench.node()
    bench.describe(node, preemptible=True)
    site = "<property>\n<name>yarn.nodemanager.local-dirs</name>\n<value>/hadoop/yarn/a,/b</value></property>"
    node.put({"/etc/hadoop/conf/yarn-site.xml": Entry(content=site), "/hadoop/yarn/a": Entry(content=None)})
    ran = bench.run(node)
    assert ran.code == 0, ran.output
    ready = json.loads(node.read("/opt/mayfly/ready.json"))
    assert (ready["spill"], ready["notice"]) == ("/hadoop/yarn/a/mayfly", "google")


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("missing", "stage/envs/abc-00000000.tar.gz is missing; clear the run to plan anew"),
        ("another", "is damaged (its SHA-256 is"),
        ("cut", "is damaged ("),
        ("empty", "holds no bin/python3"),
    ],
)
def test_an_environment_that_is_not_right_leaves_none(bench: Bench, broken: str, says: str) -> None:
    data, sha256 = packed(extra="x" * 100_000)
    if broken == "missing":
        given = {"mayfly-environment": "envs/abc-00000000.tar.gz", "mayfly-environment-sha256": sha256}
    elif broken == "another":
        given = bench.environment(data, "0" * 64)
    elif broken == "cut":
        given = bench.environment(data[:-20], sha256)
    else:
        buffer = io.BytesIO()
        tarfile.open(fileobj=buffer, mode="w:gz").close()
        given = bench.environment(buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest())
    node = bench.node(**given)
    ran = bench.run(node)
    assert ran.code == 1
    assert ran.reason.startswith(f"mayfly: FAILED on {node.name}: ")
    assert says in ran.reason
    evidence = bench.evidence(node)
    assert evidence["ok"] is False
    assert says in evidence["reason"] and "\n" not in evidence["reason"]
    assert not {"env", "env.new", "ready.json"} & set(node.run("ls", "/opt/mayfly").split())


def test_a_bucket_that_is_not_there(bench: Bench) -> None:
    given = {"mayfly-environment": "envs/a.tar.gz", "mayfly-environment-sha256": "0" * 64}
    node = bench.node(**given, **{"mayfly-staging": "gs://no-such-bucket/stage"})
    ran = bench.run(node)
    assert ran.code == 1
    assert "gs://no-such-bucket/stage/envs/a.tar.gz is missing" in ran.reason


def test_a_store_that_does_not_answer_is_tried_again(bench: Bench) -> None:
    given = {"mayfly-environment": "envs/a.tar.gz", "mayfly-environment-sha256": "0" * 64}
    ran = bench.run(bench.node(**given), STORAGE_EMULATOR_HOST="http://127.0.0.1:1")
    assert ran.code == 1
    assert "cannot read gs://" in ran.reason and "(3 tries)" in ran.reason


def test_no_metadata_server(bench: Bench) -> None:
    node = bench.node()
    ran = bench.run(node, GCE_METADATA_HOST="127.0.0.1:1")
    assert ran.code == 1
    assert "no metadata server at http://127.0.0.1:1" in ran.reason


def test_metadata_that_says_nothing_of_us(bench: Bench) -> None:
    ran = bench.run(bench.node(**{"mayfly-staging": ""}))
    assert ran.code == 1
    assert "mayfly-staging is ''" in ran.reason


STUB = """#!/bin/sh
echo "$@" >>/mount.log
case $* in *hangs*) exec sleep 1000 ;; *refuses*) echo "mount.nfs: Protocol not supported" >&2; exit 32 ;; esac
exec mount --bind /srv/data "$2"
"""


@pytest.mark.parametrize(
    ("given", "stub", "says"),
    [
        (share("/shared/a", "/export", "127.0.0.1"), False, "this image has no mount.nfs"),
        (share("/shared/a", "/export", "127.0.0.1"), True, "127.0.0.1 does not answer on port 2049"),
        (share("/shared/a", "/hangs", "127.0.0.1", "port=1"), True, "mounting 127.0.0.1:/hangs took longer than 1 s"),
        (share("/shared/a", "/refuses", "127.0.0.1", "port=1"), True, "/refuses: mount.nfs: Protocol not supported"),
        (share("/shared/a", "/nowhere"), True, "there is no directory /nowhere on this node"),
        (share("/etc", "/srv/data"), True, "a mount point is /shared or below it"),
        ("no json", True, "the list of shares cannot be read: no json"),
    ],
)
def test_a_share_that_cannot_be_had(bench: Bench, given: object, stub: bool, says: str) -> None:
    shares = given if isinstance(given, str) else json.dumps([given])
    node = bench.node(**{"mayfly-shares": shares})
    if stub:
        node.put({"/usr/sbin/mount.nfs": Entry(content=STUB, mode=0o755)})
    ran = bench.run(node, **({"MAYFLY_MOUNT_SECONDS": "1"} if "longer than 1 s" in says else {}))
    assert ran.code == 1
    assert says in ran.reason
    assert bench.evidence(node)["reason"] in ran.reason
    assert "/opt/mayfly/ready.json" not in node.run("find", "/opt/mayfly")


def test_a_share_of_a_similar_name_is_another(bench: Bench) -> None:
    node = bench.node(**{"mayfly-shares": json.dumps([share("/shared/a", "/vol1", "10.0.0.2")])})
    node.run("mkdir", "-p", "/shared/a")
    node.run("mount", "-t", "tmpfs", "10.0.0.2:/vol10", "/shared/a")  # as the table of mounts would show the other
    ran = bench.run(node)
    assert ran.code == 1
    assert ran.reason.endswith("share /shared/a: something else is mounted there already: 10.0.0.2:/vol10")
    node.run("mount", "-t", "tmpfs", "10.0.0.2:/vol1", "/shared/a")
    ran = bench.run(node)
    assert ran.code == 0, ran.output
    assert "share /shared/a is mounted" in ran.output


def test_evidence_is_whole_though_the_node_is_slow(bench: Bench) -> None:
    node = bench.node(**{"mayfly-shares": "no json"})
    slow = '#!/bin/sh\nsleep 2\nexec /usr/bin/tee "$@"\n'
    node.put({"/usr/local/sbin/tee": Entry(content=slow, mode=0o755)})
    ran = bench.run(node, MAYFLY_LOG_SECONDS="200")
    assert ran.code == 1
    assert "cannot be read: no json" in bench.evidence(node)["tail"][-1]


def test_how_nfs_is_mounted(bench: Bench) -> None:
    """As far as this goes without an NFS client in the kernel: what `mount` is called with."""
    both = [share("/shared/a", "/one", "127.0.0.1", "port=1"), share("/shared/b", "/two", "127.0.0.1", "port=1,vers=3")]
    node = bench.node(**{"mayfly-shares": json.dumps(both)})
    node.put({"/usr/sbin/mount.nfs": Entry(content=STUB, mode=0o755), "/srv/data": Entry(content=None, mode=0o755)})
    ran = bench.run(node)
    assert ran.code == 0, ran.output
    first, second = node.read("/mount.log").splitlines()
    assert first.startswith("127.0.0.1:/one /shared/a")
    assert all(option in first for option in ("hard", "timeo=600", "retry=0", "nosuid", "vers=4.1"))
    assert "vers=3" in second and "vers=4.1" not in second
    assert "share /shared/a belongs to uid 0, gid 0, mode 755" in ran.output


def test_the_gateway_of_a_master(bench: Bench) -> None:
    node = bench.node(role="Master")
    topology = "/etc/knox/conf/topologies/default.xml"
    node.put({"/usr/lib/knox": Entry(content=None), topology: Entry(content="<topology>\n</topology>\n")})
    for _ in range(2):
        ran = bench.run(node)
        assert ran.code == 0, ran.output
    assert node.read(topology).count("<role>DASK</role><url>http://localhost:8787</url>") == 1
    assert node.read(topology).count("<role>DASKWS</role><url>ws://localhost:8787</url>") == 1
    files = node.run("find", "/usr/lib/knox", "-type", "f").split()
    assert len(files) == 4
    assert json.loads(node.read("/opt/mayfly/ready.json"))["dashboard"] == 8787
    check = "import sys, xml.dom.minidom as d; [d.parse(name) for name in sys.argv[1:]]"
    node.run("/usr/bin/python3", "-c", check, topology, *files)


# ---------------------------------------------------------------- Google's own address, with a token


class _Google(BaseHTTPRequestHandler):
    """As storage.googleapis.com: without our token nothing, and only what lies there."""

    objects: Mapping[str, bytes] = {}

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, b"")
        if "/b/forbidden/" in self.path:
            return self._answer(403, b"{}")
        data = self.objects.get(self.path)
        return self._answer(200, data) if data is not None else self._answer(404, b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200 if self.headers.get("Authorization") == f"Bearer {TOKEN}" else 401, b"{}")

    def _answer(self, code: int, data: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def google(tmp_path: Path) -> Iterator[tuple[int, dict[str, bytes]]]:
    """(port on this host, objects by request path) of an HTTPS server that calls itself storage.googleapis.com."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "storage.googleapis.com")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("storage.googleapis.com")]), critical=False)
    pem = tmp_path / "google.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    objects: dict[str, bytes] = {}
    handler = type("Handler", (_Google,), {"objects": objects})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    yield server.server_address[1], objects
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("bucket_name", "says"), [("allowed", ""), ("forbidden", "roles/storage.objectUser")])
def test_with_the_nodes_own_service_account(
    bench: Bench, google: tuple[int, dict[str, bytes]], bucket_name: str, says: str
) -> None:
    port, objects = google
    data, sha256 = packed()
    objects["/storage/v1/b/allowed/o/stage%2Fenvs%2Fa.tar.gz?alt=media"] = data
    given = {"mayfly-environment": "envs/a.tar.gz", "mayfly-environment-sha256": sha256}
    node = bench.node(**given, **{"mayfly-staging": f"gs://{bucket_name}/stage"})
    bench.relays.append(Relay(node.listen("127.0.0.1", port), ("127.0.0.1", port)))
    rc = f'connect-to = "storage.googleapis.com:443:127.0.0.1:{port}"\ninsecure\n'
    node.put({"/etc/google/.curlrc": Entry(content=rc)})
    ran = bench.run(node, STORAGE_EMULATOR_HOST="", CURL_HOME="/etc/google")
    assert (ran.code, says in ran.reason) == ((1 if says else 0), True), ran.output
    assert TOKEN not in ran.output
