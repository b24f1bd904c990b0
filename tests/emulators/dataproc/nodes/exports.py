"""A folder of this host as NFS exports it, root squashed: a FUSE server for one node. Standard library only.

Run as `python -I -S exports.py FD=FOLDER ...` with open files of /dev/fuse, one for each export. On its standard input
"hold" lets everybody wait and "go" ends that; it ends with that input, or when the node's mounts are gone.

Whoever asks, the file system of this host is asked as that user and with that user's groups; uid 0 is nobody, so that
root in a node may do no more than nobody may, whatever its capabilities. (A bind mount would let root write
everywhere, and an idmapped one lets it override the mode of every file whose owner it maps.) What one node writes
another sees when it opens the file, as with NFS's close-to-open. Locks hold within a node only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import sys
import threading
from collections.abc import Callable

NOBODY = 65534
_MAX_WRITE = 1 << 20
_ROOT = 1
_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_DIRENT = struct.Struct("<QQII")
# Of fuse(4), protocol 7.31: ASYNC_READ, ATOMIC_O_TRUNC, BIG_WRITES, MAX_PAGES.
_FLAGS = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 22
_SETATTR = struct.Struct("<IIQQQQQQIIIIIIII")
_MODE, _UID, _GID, _SIZE, _ATIME, _MTIME, _FH, _ATIME_NOW, _MTIME_NOW = (1 << n for n in range(9))
_libc = ctypes.CDLL(None, use_errno=True)
_SYS_SETGROUPS = {"x86_64": 116, "aarch64": 159}.get(os.uname().machine, 116)


def become(uid: int, gid: int, groups: list[int]) -> None:
    """For file systems, and for this thread alone: as an NFS server does for each call. glibc's setgroups() would
    change all threads."""
    _libc.setfsuid(0)
    _libc.syscall(_SYS_SETGROUPS, len(groups), (ctypes.c_uint * len(groups))(*groups))
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)  # last: a uid other than 0 takes the capabilities on files with it


def groups_of(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/status") as status:
            return next([int(gid) for gid in line.split()[1:]] for line in status if line.startswith("Groups:"))
    except (OSError, StopIteration):
        return []


class Export:
    """Serves one mount, in one thread. Files are known by O_PATH descriptors: renames do not disturb them."""

    def __init__(self, device: int, folder: str, flowing: threading.Event) -> None:
        self._device, self._flowing = device, flowing
        self._nodes: dict[int, int] = {_ROOT: os.open(folder, os.O_PATH | os.O_DIRECTORY)}
        self._lookups: dict[int, int] = {_ROOT: 1}
        self._known: dict[tuple[int, int], int] = {}
        self._keys: dict[int, tuple[int, int]] = {}
        self._next = _ROOT
        self._listings: dict[int, list[tuple[int, int, bytes]]] = {}
        self._verbs: dict[int, Callable[[int, bytes], bytes]] = {
            1: self.lookup, 3: self.getattr, 4: self.setattr, 5: self.readlink, 6: self.symlink, 8: self.mknod,
            9: self.mkdir, 10: self.unlink, 11: self.rmdir, 12: self.rename, 13: self.link, 14: self.open,
            15: self.read, 16: self.write, 17: self.statfs, 18: self.release, 20: self.fsync, 25: self.nothing,
            27: self.opendir, 28: self.readdir, 29: self.releasedir, 30: self.nothing, 34: self.access,
            35: self.create, 45: self.rename2,
        }  # fmt: skip

    def serve(self) -> None:
        ready = select.poll()
        ready.register(self._device, select.POLLIN)
        while True:
            # A question that is not read yet can still be taken back: who waits for us can be killed.
            ready.poll()
            self._flowing.wait()
            try:
                request = os.read(self._device, _MAX_WRITE + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return  # ENODEV: unmounted
            _, opcode, unique, node, uid, gid, pid, _, _ = _IN.unpack_from(request)
            body = request[_IN.size :]
            if opcode == 2:
                self.forget(node, struct.unpack_from("<Q", body)[0])
            elif opcode == 42:
                (count,) = struct.unpack_from("<I", body)
                for n in range(count):
                    self.forget(*struct.unpack_from("<QQ", body, 8 + 16 * n))
            elif opcode == 26:
                self.reply(unique, self.init(body))
            elif opcode != 36:  # INTERRUPT: what is asked here is answered soon
                self.answer(unique, opcode, node, body, (uid, gid, pid))

    def answer(self, unique: int, opcode: int, node: int, body: bytes, who: tuple[int, int, int]) -> None:
        uid, gid, pid = who
        verb = self._verbs.get(opcode)
        if verb is None:
            return self.reply(unique, b"", errno.ENOSYS)
        try:
            if uid == 0:
                become(NOBODY, NOBODY, [])
            else:
                become(uid, gid, groups_of(pid))
            said = verb(node, body)
        except OSError as error:
            return self.reply(unique, b"", error.errno or errno.EIO)
        except KeyError:
            return self.reply(unique, b"", errno.ESTALE)
        self.reply(unique, said)

    def reply(self, unique: int, data: bytes, error: int = 0) -> None:
        try:
            os.writev(self._device, [_OUT.pack(_OUT.size + len(data), -error, unique), data])
        except OSError:  # who asked was interrupted, or the mount is gone
            pass

    def init(self, body: bytes) -> bytes:
        readahead, flags = struct.unpack_from("<II", body, 8)
        return struct.pack(
            "<IIIIHHIIHHI28x", 7, 31, readahead, flags & _FLAGS, 16, 12, _MAX_WRITE, 1, _MAX_WRITE >> 12, 0, 0
        )

    # ------------------------------------------------------------ which file

    def path(self, node: int) -> str:
        """Follows to the file itself, and checks its mode for whom this thread stands."""
        return f"/proc/self/fd/{self._nodes[node]}"

    def remember(self, descriptor: int) -> tuple[int, os.stat_result]:
        """The number under which the kernel will ask for a file; takes the descriptor."""
        found = os.fstat(descriptor)
        key = (found.st_dev, found.st_ino)
        node = self._known.get(key)
        if node is not None:
            os.close(descriptor)
        else:
            self._next += 1
            node = self._next
            self._nodes[node], self._known[key], self._keys[node] = descriptor, node, key
        self._lookups[node] = self._lookups.get(node, 0) + 1
        return node, found

    def forget(self, node: int, count: int) -> None:
        if node == _ROOT or node not in self._nodes:
            return
        self._lookups[node] -= count
        if self._lookups[node] <= 0:
            os.close(self._nodes.pop(node))
            del self._lookups[node], self._known[self._keys.pop(node)]

    def entry(self, parent: int, name: bytes) -> bytes:
        # Nothing is kept by the kernel (validity 0): another node may have changed it.
        node, found = self.remember(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._nodes[parent]))
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + attributes(found)

    def lookup(self, node: int, body: bytes) -> bytes:
        return self.entry(node, body.rstrip(b"\0"))

    # ------------------------------------------------------------ attributes

    def getattr(self, node: int, body: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + attributes(os.fstat(self._nodes[node]))

    def setattr(self, node: int, body: bytes) -> bytes:
        (valid, _, handle, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _) = (
            _SETATTR.unpack_from(body)
        )
        path = self.path(node)
        if valid & _MODE:
            os.chmod(path, stat.S_IMODE(mode))
        if valid & (_UID | _GID):
            os.chown(path, uid if valid & _UID else -1, gid if valid & _GID else -1)
        if valid & _SIZE:
            os.truncate(handle if valid & _FH else path, size)
        if valid & (_ATIME | _MTIME):
            self._times(path, valid, (atime * 10**9 + atime_ns, mtime * 10**9 + mtime_ns))
        return self.getattr(node, b"")

    def _times(self, path: str, valid: int, given: tuple[int, int]) -> None:
        if valid & _ATIME_NOW and valid & _MTIME_NOW:
            return os.utime(path)
        now = os.stat(path)
        atime = given[0] if valid & _ATIME else now.st_atime_ns
        mtime = given[1] if valid & _MTIME else now.st_mtime_ns
        os.utime(path, ns=(atime, mtime))

    def access(self, node: int, body: bytes) -> bytes:
        (mask,) = struct.unpack_from("<I", body)
        if not os.access(self.path(node), mask, effective_ids=True):
            raise OSError(errno.EACCES, "")
        return b""

    def statfs(self, node: int, body: bytes) -> bytes:
        found = os.fstatvfs(self._nodes[node])
        return struct.pack(
            "<QQQQQIIII24x", found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree, found.f_bsize,
            found.f_namemax, found.f_frsize, 0,
        )  # fmt: skip

    # ------------------------------------------------------------ names

    def readlink(self, node: int, body: bytes) -> bytes:
        return os.readlink(b"", dir_fd=self._nodes[node])

    def symlink(self, node: int, body: bytes) -> bytes:
        name, target = body.split(b"\0")[:2]
        os.symlink(target, name, dir_fd=self._nodes[node])
        return self.entry(node, name)

    def mknod(self, node: int, body: bytes) -> bytes:
        mode, device = struct.unpack_from("<II", body)
        name = body[16:].rstrip(b"\0")
        os.mknod(name, mode, device, dir_fd=self._nodes[node])
        return self.entry(node, name)

    def mkdir(self, node: int, body: bytes) -> bytes:
        (mode,) = struct.unpack_from("<I", body)
        name = body[8:].rstrip(b"\0")
        os.mkdir(name, mode, dir_fd=self._nodes[node])
        return self.entry(node, name)

    def unlink(self, node: int, body: bytes) -> bytes:
        os.unlink(body.rstrip(b"\0"), dir_fd=self._nodes[node])
        return b""

    def rmdir(self, node: int, body: bytes) -> bytes:
        os.rmdir(body.rstrip(b"\0"), dir_fd=self._nodes[node])
        return b""

    def rename(self, node: int, body: bytes, skip: int = 8) -> bytes:
        (target,) = struct.unpack_from("<Q", body)
        old, new = body[skip:].split(b"\0")[:2]
        os.rename(old, new, src_dir_fd=self._nodes[node], dst_dir_fd=self._nodes[target])
        return b""

    def rename2(self, node: int, body: bytes) -> bytes:
        if struct.unpack_from("<I", body, 8)[0]:
            raise OSError(errno.EINVAL, "")  # exchange, or without replacement: NFS has neither
        return self.rename(node, body, 16)

    def link(self, node: int, body: bytes) -> bytes:
        (source,) = struct.unpack_from("<Q", body)
        name = body[8:].rstrip(b"\0")
        os.link(self.path(source), name, dst_dir_fd=self._nodes[node], follow_symlinks=True)
        return self.entry(node, name)

    # ------------------------------------------------------------ content

    def open(self, node: int, body: bytes) -> bytes:
        (flags,) = struct.unpack_from("<I", body)
        # The kernel says where to write, also when it appends.
        handle = os.open(self.path(node), flags & ~(os.O_APPEND | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL))
        return struct.pack("<QII", handle, 0, 0)

    def create(self, node: int, body: bytes) -> bytes:
        flags, mode = struct.unpack_from("<II", body)
        name = body[16:].rstrip(b"\0")
        handle = os.open(name, (flags & ~os.O_APPEND) | os.O_CREAT | os.O_NOFOLLOW, mode, dir_fd=self._nodes[node])
        try:
            return self.entry(node, name) + struct.pack("<QII", handle, 0, 0)
        except BaseException:
            os.close(handle)
            raise

    def read(self, node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(handle, size, offset)

    def write(self, node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        return struct.pack("<II", os.pwrite(handle, memoryview(body)[40 : 40 + size], offset), 0)

    def fsync(self, node: int, body: bytes) -> bytes:
        os.fsync(struct.unpack_from("<Q", body)[0])
        return b""

    def release(self, node: int, body: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def nothing(self, node: int, body: bytes) -> bytes:
        return b""

    def opendir(self, node: int, body: bytes) -> bytes:
        handle = os.open(self.path(node), os.O_RDONLY | os.O_DIRECTORY)
        return struct.pack("<QII", handle, 0, 0)

    def readdir(self, node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        if offset == 0 or handle not in self._listings:
            with os.scandir(handle) as found:
                entries = [(e.inode(), _type(e), os.fsencode(e.name)) for e in found]
            self._listings[handle] = [(1, 4, b"."), (1, 4, b".."), *entries]
        packed = b""
        for n, (inode, kind, name) in enumerate(self._listings[handle][offset:], offset + 1):
            one = _DIRENT.pack(inode, n, len(name), kind) + name
            one += bytes(-len(one) % 8)
            if len(packed) + len(one) > size:
                break
            packed += one
        return packed

    def releasedir(self, node: int, body: bytes) -> bytes:
        (handle,) = struct.unpack_from("<Q", body)
        self._listings.pop(handle, None)
        os.close(handle)
        return b""


def attributes(found: os.stat_result) -> bytes:
    times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    return _ATTR.pack(
        found.st_ino, found.st_size, found.st_blocks, *(t // 10**9 for t in times), *(t % 10**9 for t in times),
        found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_rdev, found.st_blksize, 0,
    )  # fmt: skip


def _type(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return 10
    return 4 if entry.is_dir(follow_symlinks=False) else 8


def main() -> None:
    os.umask(0)  # the kernel has applied that of who asks
    flowing = threading.Event()
    flowing.set()
    threads = []
    for argument in sys.argv[1:]:
        device, _, folder = argument.partition("=")
        threads.append(threading.Thread(target=Export(int(device), folder, flowing).serve))
    for thread in threads:
        thread.start()
    threading.Thread(target=obey, args=(flowing,), daemon=True).start()


def obey(flowing: threading.Event) -> None:
    for line in sys.stdin:
        flowing.clear() if line.strip() == "hold" else flowing.set()
    os._exit(0)


if __name__ == "__main__":
    main()
