"""Where the ResourceManager is, by the configuration of a Hadoop client; and answers that are none."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from mayfly.errors import YarnRefused, YarnUnavailable
from mayfly.yarn.facts import Life, Size
from mayfly.yarn.queues import SETTINGS
from mayfly.yarn.resource_manager import ResourceManager
from mayfly.yarn.site import HadoopSite, user_of


def write(folder: Path, core: dict[str, str] | None = None, **site: str) -> dict[str, str]:
    for name, properties in (("core-site.xml", core or {}), ("yarn-site.xml", site)):
        lines = [
            f"<property><name>{k.replace('__', '.')}</name><value>{v}</value></property>" for k, v in properties.items()
        ]
        (folder / name).write_text(f"<?xml version='1.0'?><configuration>{''.join(lines)}</configuration>")
    return {"HADOOP_CONF_DIR": str(folder), "HADOOP_USER_NAME": "me"}


def test_by_hadoops_own_defaults(tmp_path: Path) -> None:
    manager = ResourceManager.find(write(tmp_path))
    assert (manager.page, manager.hosts) == ("http://localhost:8088/cluster", (("localhost", 8032),))
    manager = ResourceManager.find(write(tmp_path, yarn__resourcemanager__hostname="master-1"))
    assert (manager.page, manager.hosts) == ("http://master-1:8088/cluster", (("master-1", 8032),))
    assert manager.user == "me"
    assert manager.site == tmp_path / "yarn-site.xml"


def test_addresses_with_variables_and_https(tmp_path: Path) -> None:
    environment = write(
        tmp_path,
        yarn__resourcemanager__hostname="${env.MASTER}",
        yarn__resourcemanager__webapp__https__address="${yarn.resourcemanager.hostname}:9999",
        yarn__resourcemanager__address="0.0.0.0:1234",
        yarn__http__policy="HTTPS_ONLY",
    )
    manager = ResourceManager.find({**environment, "MASTER": "m"})
    assert (manager.page, manager.hosts) == ("https://m:9999/cluster", (("m", 1234),))


def test_kerberos_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(YarnRefused, match=r"demands Kerberos .* does not speak it yet"):
        ResourceManager.find(write(tmp_path, {"hadoop.security.authentication": "kerberos"}))


def test_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(YarnRefused, match=r"no yarn-site\.xml in .*: set HADOOP_CONF_DIR to the folder"):
        ResourceManager.find({"HADOOP_CONF_DIR": str(tmp_path)})


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    environment = write(tmp_path)
    (tmp_path / "yarn-site.xml").write_text("<configuration><property>")
    with pytest.raises(YarnRefused, match=r"yarn-site\.xml cannot be read"):
        ResourceManager.find(environment)


def test_properties(tmp_path: Path) -> None:
    write(tmp_path, a="${b}", b="${a}", c=" true ", d="${env.NO_SUCH:-x}/${e}")
    site = HadoopSite(tmp_path, {})
    assert site.get("a") in ("${a}", "${b}")  # a circle ends
    assert site.is_set("c")
    assert site.get("d") == "x/${e}"
    assert site.get("none", "n") == "n"
    (tmp_path / "core-site.xml").unlink()
    assert HadoopSite(tmp_path, {}).is_set("c")
    home = tmp_path / "home" / "etc" / "hadoop"
    home.mkdir(parents=True)
    write(home)
    assert HadoopSite.find({"HADOOP_HOME": str(tmp_path / "home")}).folder == home
    assert user_of({"HADOOP_USER_NAME": "x"}) == "x"
    assert user_of({})


class Answers(http.server.BaseHTTPRequestHandler):
    """Says `answer` to everything; with the code 0 it is not even HTTP. `asked`: the paths."""

    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        code, headers, body = self.answer
        if code:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Transfer-Encoding" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def strange(tmp_path: Path) -> Iterator[ResourceManager]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        address = f"127.0.0.1:{server.server_address[1]}"
        yield ResourceManager.find(write(tmp_path, yarn__resourcemanager__webapp__address=address))
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        (503, {}, b"There is currently no active RM. Will retry in 1 seconds."),
        (307, {"Location": "http://127.0.0.1:1/"}, b"This is standby RM. The redirect url is: /cluster"),
        (200, {"Refresh": "3; url=/"}, b"This is standby RM"),
        (200, {}, b'{"clusterInfo": {'),
        (200, {}, b"<html>login</html>"),
        (500, {}, b'{"RemoteException": {"message": "x"}}'),
        (200, {"Transfer-Encoding": "chunked"}, b'e\r\n{"clusterInfo":'),  # it died meanwhile
        (0, {}, b"SSH-2.0-OpenSSH_9.6\r\n"),
    ],
)
def test_what_is_no_answer_is_unknown(
    strange: ResourceManager, answer: tuple[int, dict[str, str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "answer", answer)
    with pytest.raises(YarnUnavailable, match="the ResourceManager does not answer"):
        strange.info()
    assert strange.state("application_1_1") is Life.UNKNOWN


def test_what_every_resource_manager_knows_is_there_later(
    strange: ResourceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has just come up says 404 for a moment; it is not lost for that."""
    monkeypatch.setattr(Answers, "answer", (404, {}, b""))
    for ask in (strange.info, strange.queues, strange.nodes, strange.leaving, strange.labels):
        with pytest.raises(YarnUnavailable, match=r"does not know /\S+"):
            ask()
    with pytest.raises(YarnUnavailable):
        strange.applications("x")
    size = Size(memory=1, cores=1)
    assert strange.why_waiting("application_1_1", wanted=2, have=1, worker=size).startswith("1 of 2 workers")


def test_settings_are_asked_for_until_they_are_told(strange: ResourceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings_asked() -> int:
        before = len(Answers.asked)
        strange.queues()
        return sum("/conf?" in path for path in Answers.asked[before:])

    monkeypatch.setattr(Answers, "answer", (200, {}, b"{}"))
    assert settings_asked() == len(SETTINGS)
    assert settings_asked() == 0


def test_a_refusal_says_whose_and_what(strange: ResourceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"RemoteException": {"exception": "X", "message": "User me does not have privilege"}}'
    monkeypatch.setattr(Answers, "answer", (403, {}, body))
    with pytest.raises(YarnRefused, match="refuses GET /ws/v1/cluster/info to user 'me': User me does not have"):
        strange.info()
    monkeypatch.setattr(Answers, "answer", (401, {"WWW-Authenticate": "Negotiate"}, b""))
    with pytest.raises(YarnRefused, match="demands Kerberos"):
        strange.info()


def test_what_yarn_may_leave_out(strange: ResourceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "answer", (200, {"Date": "no date"}, b'{"apps": null, "nodes": null, "app": {}}'))
    assert strange.applications("x") == ()
    assert strange.nodes() == ()
    assert strange.application("application_1_1").life is Life.UNKNOWN
    assert strange.queues().kind == "unknown"
    assert strange.labels() == ()
