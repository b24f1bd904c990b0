"""Clusters of real nodes by themselves, without the API: what is in them, what befalls them, that nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from scripts.cloud import spark
from scripts.cloud.object_store import ObjectStore
from tests.emulators.dataproc.machines import MachineCluster, MachineJob, MachineNode, NodeFailed, Role
from tests.emulators.dataproc.nodes import Bind, NodeMachines, Options, missing
from tests.emulators.dataproc.nodes.hadoop import HADOOP_GROUP, USERS
from tests.emulators.dataproc.nodes.namespaces import Farm, Node
from tests.emulators.dataproc.nodes.network import FarmError
from tests.emulators.dataproc.objects import Objects
from tests.processes import family, marked
from tests.yarn.fixtures import VERSION

ROOT = Path(__file__).resolve().parents[2]
IMAGE = {"3.3.6": "2.2"}.get(VERSION, "3.0")
"""Chosen by TEST_HADOOP, as for all tests on YARN."""
_SECONDS = 240.0
YARN = (USERS["yarn"], HADOOP_GROUP)
pytestmark = pytest.mark.timeout(900)  # the first test waits for the nodes of all

INIT = """\
#!/bin/bash
set -eu
attribute() { /usr/share/google/get_metadata_value "attributes/$1"; }
echo "$(id -un) on $(hostname), a $(attribute dataproc-role) of $(attribute dataproc-cluster-name), master $(attribute \
dataproc-master), colour $(attribute colour)"
echo "without header: $(curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/computeMetadata/v1/instance/id)"
pgrep java && echo "too late"
mkdir -p /opt/seen /shared/data && date >/opt/seen/init
mount -t nfs -o vers=4.1,hard filestore:/data /shared/data
"""


@pytest.fixture(autouse=True, scope="module")
def possible() -> None:
    if why := missing(IMAGE) or spark.missing():
        pytest.skip(why)


def machine(name: str, role: Role) -> MachineNode:
    yarn_mib = 0 if role == "master" else 6144
    return MachineNode(
        name=name, role=role, cores=4, memory=16 << 30, yarn_mib=yarn_mib, yarn_cores=4, preemptible=role == "secondary"
    )


def eventually(what: str, happened: Callable[[], bool], seconds: float = _SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not so after {seconds:g} s: {what}"
        time.sleep(0.05)


@dataclass
class Setup:
    machines: NodeMachines
    cluster: MachineCluster
    objects: Objects
    folder: Path

    def node(self, name: str) -> Node:
        return self.machines.cluster(self.cluster).machines[name].node

    def job(
        self, code: str, *args: str, id: str, cancelled: threading.Event | None = None, python: str = ""
    ) -> tuple[int, str]:
        """Exit code and output of a PySpark job with this code."""
        uri = f"gs://staging/{id}.py"
        self.objects.write(uri, textwrap.dedent(code).encode())
        output = self.folder / f"{id}.log"
        output.touch()
        properties = {"spark.pyspark.python": python} if python else {}
        job = MachineJob(id=id, main_uri=uri, args=args, properties=properties)
        code_ = self.machines.run(self.cluster, job, output, cancelled or threading.Event())
        return code_, output.read_text()


@pytest.fixture(scope="module")
def objects(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Objects]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.env.items():
            patch.setenv(name, value)
        yield Objects(tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def setup(objects: Objects, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """One master, two workers. Tests leave these as they are."""
    folder = tmp_path_factory.mktemp("nodes")
    export = folder / "export"
    (export / "public").mkdir(parents=True)
    (export / "public").chmod(0o1777)
    (export / "workers").mkdir()
    os.chown(export / "workers", *YARN)
    here = {Path(sys.prefix), Path(sys.base_prefix)}
    options = Options(
        spark=spark.home(),
        binds=[Bind(source=path, target=str(path)) for path in here],
        cancel_seconds=_SECONDS,
        exports={"/data": export},
    )
    machines = NodeMachines(folder, objects, options)
    objects.write("gs://staging/init.sh", INIT.encode())
    cluster = MachineCluster(
        name="demo",
        uuid="11111111-1111-1111-1111-111111111111",
        project="project-1",
        region="europe-west1",
        image=IMAGE,
        metadata={"colour": "green"},
        properties={"dataproc:am.primary_only": "true", "yarn:yarn.scheduler.minimum-allocation-mb": "128"},
        init_actions=[("gs://staging/init.sh", _SECONDS)],
        staging_bucket="staging",
    )
    nodes = [machine("demo-m", "master"), machine("demo-w-0", "worker"), machine("demo-w-1", "worker")]
    try:
        machines.start(cluster, nodes, threading.Event())
        yield Setup(machines, cluster, objects, folder)
    finally:
        machines.close()


# ---------------------------------------------------------------- nothing is left


def spaces(pid: int) -> set[str]:
    return {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "mnt", "pid")}


def living_in(wanted: set[str]) -> list[str]:
    """Processes of this machine in one of these namespaces."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and spaces(int(entry.name)) & wanted:
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


def on_host() -> tuple[str, list[str], bool]:
    """What nodes could leave: mounts, links, and a file that is written in the node below."""
    return Path("/proc/self/mountinfo").read_text(), sorted(os.listdir("/sys/class/net")), Path("/opt/left").exists()


def open_files() -> set[str]:
    """Of this process, by what they are: those that the garbage collector closes meanwhile are nobody's fault."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # that of the listing itself
            continue
    return found


def test_a_farm_that_ended_leaves_nothing() -> None:
    before, files = on_host(), open_files()
    farm = Farm()
    nodes = [farm.node(f"node-{n}", farm.address()) for n in range(3)]
    relay = nodes[0].listen("127.0.0.1", 4443)
    processes = [node.start(["sleep", "1000"], output=Path(os.devnull)) for node in nodes]
    nodes[0].run("sh", "-c", "touch /opt/left; setsid -f sleep 1000 </dev/null >/dev/null 2>&1")
    mine = set().union(*(spaces(pid) for pid in (farm.pid, *(node.pid for node in nodes)))) - spaces(os.getpid())
    assert len(mine) == 12
    assert nodes[0].run("hostname").strip() == "node-0"
    assert nodes[1].run("ls", "/sys/class/net").split() == ["eth0", "lo"]
    assert living_in(mine)
    nodes[2].kill()
    farm.end()
    for node, process in zip(nodes, processes, strict=True):
        node.close()
        assert process.wait(_SECONDS) != 0
    relay.close()
    assert living_in(mine) == []
    assert on_host() == before
    assert open_files() <= files


def test_nothing_outlives_a_maker_that_is_killed(tmp_path: Path) -> None:
    """Not even what has sessions of its own, or waits for a server that does not answer."""
    before, mark = on_host(), uuid.uuid4().hex
    tmp_path.chmod(0o755)  # root in a node is nobody there
    code = """
        import sys, time
        from pathlib import Path
        from tests.emulators.dataproc.nodes.namespaces import Farm
        from tests.emulators.dataproc.nodes.nfs import Mounts
        farm = Farm()
        nodes = [farm.node(f"node-{n}", farm.address()) for n in range(2)]
        sockets = [node.listen("127.0.0.1", 4443) for node in nodes]
        for node in nodes:
            node.start(["sleep", "1000"], output=Path("/dev/null"))
            node.run("sh", "-c", "touch /opt/left; setsid -f sleep 1000 </dev/null >/dev/null 2>&1")
        mounts = Mounts(farm, nodes[0], {"/data": Path(sys.argv[1])})
        nodes[0].run("ls", "/run/exports/data")
        mounts.hold(True)
        nodes[0].start(["ls", "/run/exports/data"], output=Path("/dev/null"))
        print(farm.pid, *(node.pid for node in nodes), flush=True)
        time.sleep(1000)
        """
    maker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE,
        env=os.environ | {"MAKER": mark},
    )  # fmt: skip
    try:
        assert maker.stdout is not None
        pids = [int(pid) for pid in maker.stdout.readline().split()]
        mine = set().union(*(spaces(pid) for pid in pids)) - spaces(os.getpid())
    finally:
        maker.send_signal(signal.SIGKILL)
        maker.communicate()
    assert len(pids) == 3
    eventually("all is gone", lambda: living_in(mine) == [] and family([marked("MAKER", mark)]) == [])
    assert on_host() == before


# ---------------------------------------------------------------- a cluster


def test_init_actions_ran_as_root_before_the_daemons(setup: Setup) -> None:
    for name, role in (("demo-m", "Master"), ("demo-w-0", "Worker"), ("demo-w-1", "Worker")):
        said = setup.objects.read(setup.cluster.init_output(name, 0)).decode()
        assert said.splitlines() == [
            f"root on {name}, a {role} of demo, master demo-m, colour green",
            "without header: 403",
        ]
        assert setup.node(name).run("ls", "/opt/seen") == "init\n"
    assert not Path("/opt/seen").exists()


def test_jobs_run_as_root_on_the_master_and_containers_as_yarn_on_any_node(setup: Setup) -> None:
    """A skein application: the master on a primary worker, the containers also on secondary ones, each of which sees
    the object store at the host's URL."""
    setup.machines.add(setup.cluster, [machine("demo-sw-0", "secondary"), machine("demo-sw-1", "secondary")])
    code = """
        import getpass, json, socket, subprocess, sys, time, urllib.request
        import skein
        print(json.dumps([getpass.getuser(), socket.gethostname(), sys.argv[1:]]))
        script = '''
        where="$STORAGE_EMULATOR_HOST/upload/storage/v1/b/staging/o?uploadType=media&name=who/$(hostname)"
        echo "$(id -un):$(pwd)" | curl -sf --data-binary @- "$where" >/dev/null
        sleep 600
        '''
        size = skein.Resources(memory="5 GiB", vcores=1)
        spec = skein.ApplicationSpec(
            master=skein.Master(script="sleep 600", resources=skein.Resources(memory="512 MiB", vcores=1)),
            services={"all": skein.Service(instances=4, script=script, resources=size)},
        )
        with skein.Client() as client:
            app = client.submit_and_connect(spec)
            url = f"http://demo-m:8088/ws/v1/cluster/apps/{app.id}"
            while len(app.get_containers(states=("running",))) < 4:
                time.sleep(0.1)
            print(json.load(urllib.request.urlopen(url))["app"]["amHostHttpAddress"])
            while subprocess.run(["curl", "-sf", sys.argv[2]], capture_output=True).stdout.count(b'"name":"who/') < 4:
                time.sleep(0.1)
            app.shutdown("SUCCEEDED")
        sys.exit(7)
        """
    listing = f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b/staging/o?prefix=who/"
    exit_code, said = setup.job(code, "two words", listing, id="job-1", python=sys.executable)
    assert exit_code == 7, said
    lines = [line for line in said.splitlines() if line.startswith(("[", "demo-"))]
    assert json.loads(lines[0]) == ["root", "demo-m", ["two words", listing]]
    assert lines[1].startswith("demo-w-")
    for name in ("demo-w-0", "demo-w-1", "demo-sw-0", "demo-sw-1"):
        user, _, folder = setup.objects.read(f"gs://staging/who/{name}").decode().partition(":")
        assert user == "yarn"
        assert folder.startswith("/hadoop/yarn/nm-local-dir/usercache/root/")
    made = setup.machines.cluster(setup.cluster)
    setup.machines.remove(setup.cluster, ["demo-sw-0"], graceful_seconds=30)
    assert made.states()["demo-sw-0"] == "DECOMMISSIONED"
    setup.machines.add(setup.cluster, [machine("demo-sw-0", "secondary")])
    assert made.states()["demo-sw-0"] == "RUNNING"
    setup.machines.remove(setup.cluster, ["demo-sw-0"], graceful_seconds=0)
    setup.machines.fault(setup.cluster, "demo-sw-1", "lose")
    assert setup.node("demo-m").run("getent", "hosts", "demo-sw-1")
    with pytest.raises(KeyError):
        setup.machines.fault(setup.cluster, "demo-sw-1", "lose")


def test_hdfs_has_permissions(setup: Setup) -> None:
    code = """
        import subprocess
        print(subprocess.run(["hdfs", "dfs", "-touchz", "/user/mine", "/mine"], capture_output=True, text=True).stderr)
        """
    _, said = setup.job(code, id="job-2")
    assert "touchz: Permission denied: user=root, access=WRITE" in said
    assert "/user/mine" not in said


def test_root_is_squashed_on_shares_and_all_nodes_see_the_same(setup: Setup) -> None:
    one, other = setup.node("demo-w-0"), setup.node("demo-m")
    assert "filestore:/data on /shared/data type fuse.nfs" in one.run("mount")
    with pytest.raises(FarmError, match="Permission denied"):
        one.run("touch", "/shared/data/workers/mine")
    one.run("sh", "-c", "umask 077; echo of workers >/shared/data/workers/file", user=YARN)
    with pytest.raises(FarmError, match="Permission denied"):
        other.run("cat", "/shared/data/workers/file")
    assert other.run("cat", "/shared/data/workers/file", user=YARN) == "of workers\n"
    other.run("sh", "-c", "echo more >>/shared/data/workers/file", user=YARN)
    assert one.run("cat", "/shared/data/workers/file", user=YARN) == "of workers\nmore\n"
    one.run("sh", "-c", "echo of root >/shared/data/public/file")
    assert other.run("stat", "-c", "%u %g", "/shared/data/public/file") == "65534 65534\n"
    with pytest.raises(FarmError, match="not permitted"):
        other.run("chown", "yarn", "/shared/data/public/file")
    with pytest.raises(FarmError, match="reason given by server: No such file"):
        one.run("mount", "-t", "nfs", "filestore:/nothing", "/mnt")


def test_a_cancelled_job_ends_by_sigterm_to_its_jvm(setup: Setup) -> None:
    """What the JVM has started does not end with it: the worst that a real agent may do."""
    code = """
        import subprocess, time
        subprocess.Popen(["setsid", "sleep", "12345"])
        open("/opt/waits", "w").close()
        time.sleep(1000)
        """
    master = setup.node("demo-m")
    cancelled = threading.Event()

    def cancel() -> None:
        waits = master.enter(["test", "-e", "/opt/waits"])
        eventually("the job runs", lambda: subprocess.run(waits, check=False).returncode == 0)
        cancelled.set()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    exit_code, _ = setup.job(code, id="job-3", cancelled=cancelled)
    canceller.join()
    assert exit_code == 143
    assert master.run("pgrep", "-f", "sleep 12345")


def test_preempted_nodes_get_a_notice_and_are_gone(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    made = setup.machines.cluster(setup.cluster)
    monkeypatch.setattr(made, "options", replace(made.options, soft_off=True))
    setup.machines.add(setup.cluster, [machine("demo-sw-2", "secondary")])
    node = setup.node("demo-sw-2")
    url = "http://metadata.google.internal/computeMetadata/v1/instance/preempted"
    curl = ["curl", "-sf", "-H", "Metadata-Flavor: Google"]
    said = node.run(*curl, "-D", "-", url)
    (etag,) = re.findall(r"^ETag: (\w+)\s*$", said, re.M | re.I)
    assert said.endswith("FALSE")
    heard: list[str] = []
    listener = threading.Thread(
        target=lambda: heard.append(node.run(*curl, f"{url}?wait_for_change=true&last_etag={etag}"))
    )
    listener.start()
    time.sleep(0.2)  # it waits by then, or hears at once that it has changed
    setup.machines.fault(setup.cluster, "demo-sw-2", "preempt")
    listener.join(_SECONDS)
    assert heard == ["TRUE"]
    assert node.alive
    # It has the time to say good-bye: else YARN would wait for it for ten minutes.
    eventually("it has said good-bye", lambda: made.states()["demo-sw-2"] == "SHUTDOWN")
    assert node.alive
    setup.machines.fault(setup.cluster, "demo-sw-2", "lose")
    assert not node.alive


def test_a_node_that_is_cut_off_reaches_nobody_until_it_is_connected_again(setup: Setup) -> None:
    node = setup.node("demo-w-1")
    store = ["curl", "-s", "-m", "3", f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b/staging/o"]
    master = ["curl", "-s", "-m", "3", "http://demo-m:8088/ws/v1/cluster/info"]
    share = ["timeout", "3", "ls", "/shared/data"]

    def codes() -> list[int]:
        ways = (store, master, share)
        return [subprocess.run(node.enter(argv), capture_output=True, check=False).returncode for argv in ways]

    eventually("it reaches everybody", lambda: codes() == [0, 0, 0])
    setup.machines.fault(setup.cluster, "demo-w-1", "cut")
    assert all(codes())
    setup.machines.fault(setup.cluster, "demo-w-1", "heal")
    eventually("it is back", lambda: codes() == [0, 0, 0])


def test_a_failed_init_action_is_told_in_googles_words_and_the_nodes_stay(setup: Setup) -> None:
    script = """\
#!/bin/bash
case $(hostname) in
    broken-w-*) echo "no such thing" >&2; exit 3 ;;
esac
"""
    setup.objects.write("gs://staging/broken.sh", script.encode())
    cluster = replace(
        setup.cluster, name="broken", uuid="22222222", init_actions=[("gs://staging/broken.sh", _SECONDS)]
    )
    nodes = [machine("broken-m", "master"), machine("broken-w-0", "worker"), machine("broken-w-1", "worker")]
    with pytest.raises(NodeFailed) as caught:
        setup.machines.start(cluster, nodes, threading.Event())
    by_node = {error.node: error for error in (caught.value, *caught.value.others)}
    outputs = {name: cluster.init_output(name, 0) for name in ("broken-w-0", "broken-w-1")}
    failed = "Initialization action failed. Failed action 'gs://staging/broken.sh', see output in: "
    assert {name: error.message for name, error in by_node.items()} == {
        name: f"{failed}{output}" for name, output in outputs.items()
    }
    assert setup.objects.read(outputs["broken-w-0"]) == b"no such thing\n"
    nodes_left = [setup.machines.cluster(cluster).machines[node.name].node for node in nodes]
    assert all(node.alive for node in nodes_left)
    setup.machines.stop(cluster)
    assert not any(node.alive for node in nodes_left)


def test_an_init_action_that_takes_too_long_is_told_in_googles_words(setup: Setup) -> None:
    """Alone on its cluster: whatever else has this limit may be slow."""
    setup.objects.write("gs://staging/hangs.sh", b"#!/bin/bash\nsleep 1000\n")
    cluster = replace(setup.cluster, name="hangs", uuid="44444444", init_actions=[("gs://staging/hangs.sh", 2.0)])
    with pytest.raises(NodeFailed) as caught:
        setup.machines.start(cluster, [machine("hangs-m", "master")], threading.Event())
    assert (caught.value.node, caught.value.others) == ("hangs-m", ())
    assert caught.value.message == (
        "Initialization action timed out. Failed action 'gs://staging/hangs.sh', see output in: "
        f"{cluster.init_output('hangs-m', 0)}"
    )
    assert setup.machines.booted(cluster) == {"hangs-m"}
    setup.machines.stop(cluster)


def test_a_cluster_can_be_stopped_while_it_starts(setup: Setup) -> None:
    setup.objects.write("gs://staging/waits.sh", b"#!/bin/bash\nuntil [ -e /opt/never ]; do sleep 0.1; done\n")
    actions = [("gs://staging/waits.sh", 10 * _SECONDS)]
    cluster = replace(setup.cluster, name="brief", uuid="33333333", init_actions=actions)
    ended: list[BaseException] = []

    def start() -> None:
        try:
            setup.machines.start(
                cluster, [machine("brief-m", "master"), machine("brief-w-0", "worker")], threading.Event()
            )
        except Exception as error:
            ended.append(error)

    starter = threading.Thread(target=start)
    starter.start()
    eventually("its master boots", lambda: "brief-m" in setup.machines.booted(cluster))
    setup.machines.stop(cluster)
    starter.join(_SECONDS)
    assert not starter.is_alive()
    assert len(ended) == 1
    assert setup.machines.booted(cluster) == set()
