"""What nodes have of an NFS server: exports.py for each node, and a `mount.nfs` that binds what that serves.

There is no NFS in many kernels, and none in most containers; what cannot be seen here is the protocol itself: leases,
lock recovery, retransmission, idmapping by name. What can: who may do what, one state on all nodes, `mount -t nfs` with
its answers, and a server that does not answer.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.emulators.dataproc.nodes.namespaces import GATEWAY, Entry, Farm, Node
from tests.emulators.dataproc.nodes.processes import descendants, send

SERVER = "filestore"
"""Its host name in nodes; its address is that of the bridge."""
PORT = 2049
_PLACE = "/run/exports"

MOUNT_NFS = f"""\
#!/bin/bash
# mount(8) calls this: SERVER:EXPORT FOLDER [-v...] [-o OPTIONS]
spec=$1 folder=$2 options=""
shift 2
while getopts "sfnvo:N:t:" given; do [[ $given != o ]] || options=$OPTARG; done
case ${{spec%%:*}} in
    {SERVER} | {SERVER}.* | {GATEWAY}) ;;
    *) echo "mount.nfs: Connection timed out for $spec" >&2; exit 32 ;;
esac
if ! mountpoint -q "{_PLACE}/${{spec#*:}}"; then
    echo "mount.nfs: mounting $spec failed, reason given by server: No such file or directory" >&2
    exit 32
fi
mount --bind "{_PLACE}/${{spec#*:}}" "$folder" || exit 32
[[ ,$options, != *,ro,* ]] || mount -o remount,bind,ro "$folder"
"""


class Mounts:
    """The exports of one node, served by one process that ends with the farm."""

    def __init__(self, farm: Farm, node: Node, exports: Mapping[str, Path]) -> None:
        devices: dict[str, int] = {}
        try:
            for export in exports:
                devices[export] = os.open("/dev/fuse", os.O_RDWR)
                self._mount(node, export, devices[export])
            arguments = [f"{device}={exports[export]}" for export, device in devices.items()]
            self._server = subprocess.Popen(
                ["nsenter", "-t", str(farm.pid), "-p", "--", sys.executable, "-I", "-S",
                 str(Path(__file__).with_name("exports.py")), *arguments],
                pass_fds=list(devices.values()), stdin=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
        finally:
            for device in devices.values():
                os.close(device)
        node.put({"/usr/sbin/mount.nfs": Entry(content=MOUNT_NFS, mode=0o755)})
        node.run("ln", "-sf", "mount.nfs", "/usr/sbin/mount.nfs4")

    @staticmethod
    def _mount(node: Node, export: str, device: int) -> None:
        place = f"{_PLACE}/{export.strip('/')}"
        node.run("mkdir", "-p", place)
        # -i: no helper program; allow_other: for all users, each as what they are.
        options = f"fd={device},rootmode=40755,user_id=0,group_id=0,allow_other,nosuid,nodev"
        command = ["mount", "-i", "-t", "fuse.nfs", "-o", options, f"{SERVER}:{export}", place]
        # In the node's mounts but not in its PIDs: the server shall see who asks as this host does.
        subprocess.run(["nsenter", "-t", str(node.pid), "-m", "-r", "--", *command], pass_fds=[device], check=True)

    def hold(self, held: bool) -> None:
        """Whoever asks waits, as for a server that is away, until it is back."""
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(b"hold\n" if held else b"go\n")
            self._server.stdin.flush()
        except OSError:  # it ended with its farm
            pass

    def close(self) -> None:
        """Who waits gets an error. Before the node is killed: some that wait for their server do not die."""
        assert self._server.stdin is not None
        send(descendants(self._server.pid), signal.SIGKILL)
        self._server.wait(240)
        try:
            self._server.stdin.close()
        except OSError:
            pass


class Door:
    """Port 2049 of the server, for those who try whether it is open."""

    def __init__(self, farm: Farm) -> None:
        self._listener = farm.listen(GATEWAY, PORT)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
