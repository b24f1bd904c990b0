"""Just enough of ELF to move an interpreter: where it looks for its libraries, and what it asks of the node. Pure.

An interpreter built with `--enable-shared` carries the absolute folder of its own library (DT_RUNPATH). Moved
elsewhere it would start with the library of its old place, or not at all. The string is overwritten in place by one
that counts from the file itself (`$ORIGIN`), and the tag becomes DT_RPATH, which also holds for the libraries that are
loaded on behalf of this one. Source: System V ABI, "Dynamic Section"; ld.so(8), "Rpath token expansion".
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

_DYNAMIC: Final = 2
_LOAD: Final = 1
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29


@dataclass(frozen=True, kw_only=True)
class Elf:
    """What one x86_64 (64 bit, little endian) ELF file says about other files."""

    needed: tuple[str, ...]
    path: str | None
    """DT_RUNPATH or DT_RPATH, None without one."""
    path_offset: int = 0
    """Of the string, in the file."""
    tag_offset: int = 0
    """Of its entry in the dynamic section, in the file."""


def parse(data: bytes) -> Elf | None:
    """None when this is no dynamic 64-bit little-endian ELF file."""
    if data[:6] != b"\x7fELF\x02\x01":
        return None
    table, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQ", data, table + number * size) for number in range(count)]
    dynamic = next(((offset, length) for kind, _, offset, _, _, length in headers if kind == _DYNAMIC), None)
    if dynamic is None:
        return None
    entries = []
    for place in range(dynamic[0], dynamic[0] + dynamic[1], 16):
        tag, value = struct.unpack_from("<qQ", data, place)
        if tag == 0:
            break
        entries.append((tag, value, place))
    address = next(value for tag, value, _ in entries if tag == _STRTAB)
    strings = next(
        offset + address - start
        for kind, _, offset, start, _, length in headers
        if kind == _LOAD and start <= address < start + length
    )

    def text(value: int) -> str:
        return data[strings + value : data.index(b"\0", strings + value)].decode()

    needed = tuple(text(value) for tag, value, _ in entries if tag == _NEEDED)
    # Where both are, the loader looks at DT_RUNPATH alone.
    paths = sorted((entry for entry in entries if entry[0] in (_RPATH, _RUNPATH)), reverse=True)
    if not paths:
        return Elf(needed=needed, path=None)
    _, value, place = paths[0]
    return Elf(needed=needed, path=text(value), path_offset=strings + value, tag_offset=place)


def with_path(data: bytes, path: str) -> bytes:
    """The file with another search path, as DT_RPATH. ValueError when it has none, or one that is shorter."""
    elf = parse(data)
    if elf is None or elf.path is None:
        raise ValueError("has no search path")
    room = len(elf.path.encode())
    new = path.encode()
    if len(new) > room:
        raise ValueError(f"its search path {elf.path!r} has no room for {path!r}")
    changed = bytearray(data)
    changed[elf.path_offset : elf.path_offset + room] = new.ljust(room, b"\0")
    struct.pack_into("<q", changed, elf.tag_offset, _RPATH)
    return bytes(changed)


def glibc_of(data: bytes) -> tuple[int, int]:
    """The newest version of glibc that the file names, (0, 0) for none."""
    versions = re.findall(rb"\0GLIBC_(\d+)\.(\d+)", data)
    return max(((int(major), int(minor)) for major, minor in versions), default=(0, 0))
