"""Reading the end of a log: the traceback that ended the script, and lines fit to be quoted. Pure, stdlib only.

A log tail mixes the script's output, its workers' (`[worker 3] …`) and the noise of an interpreter that is going down
(`Exception ignored in atexit callback`, tasks that asyncio never awaited). What a reader needs is the one traceback
that ended the script, without the frames of the libraries in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

MAX_LINES = 14
MAX_CHARS = 300
_HEADER = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_NOISE = re.compile(
    r" - (CRITICAL|ERROR|WARNING|INFO|DEBUG) - |^(Exception (ignored in|in thread|in callback|in default)|"
    r"(Task|Future) exception was never retrieved|future:|task:|handle:|Error in (atexit|sys\.)|Process \S+:)"
)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_FRAME = re.compile(r'^  File "(?P<path>.*)", line (?P<line>\d+)(?:, in (?P<name>.*))?$')
_ERROR = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$")
_MARKS = re.compile(r"[\s~^]*")
_WORKER = re.compile(r"^\[(?P<source>worker [^\]]*|scheduler|host|script)\] ?")
_GROUP = re.compile(r"^  +(\+-\+-{3,}.*|\+ Exception Group (?=Traceback)|\+-{3,}.*|\| )")
_LIBRARY = re.compile(r"/(site|dist)-packages/|/lib(64)?/python3[\d.]*/|^<frozen |/lib/mayfly/|/mayfly/driver/")
_JOB_FOLDER = re.compile(r"^.*/code/[0-9a-f]+/job/|^.*/job/(?=[^/])")
_IN_JOB_FOLDER = re.compile(r'(?<=File ")[^"]*/code/[0-9a-f]+/job/')


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One step of a traceback; `path` is relative to the job's folder where it lies there."""

    path: str
    line: int
    name: str
    source: tuple[str, ...] = ()
    library: bool = False

    def quoted(self) -> list[str]:
        place = f'  File "{self.path}", line {self.line}' + (f", in {self.name}" if self.name else "")
        return [place, *self.source]


@dataclass(frozen=True, kw_only=True)
class Traceback:
    """`type` is the exception's name as printed, with its module; `cause` is the first exception of a chain."""

    type: str
    message: tuple[str, ...]
    frames: tuple[Frame, ...]
    cause: str = ""
    after: tuple[str, ...] = ()
    """Lines after the message's first blank line: the rest of a long message, or what was printed next."""

    @property
    def short_type(self) -> str:
        return self.type.rpartition(".")[2]

    @property
    def cause_type(self) -> str:
        return self.cause.partition(":")[0].rpartition(".")[2]

    @property
    def text(self) -> str:
        return "\n".join(self.message)

    @property
    def remote(self) -> bool:
        """Raised by a task and handed to the script by Dask, so that it happened on a worker.

        Dask cuts its own frames out: after `compute` comes the task's first frame.
        """
        if any(re.search(r"/distributed/(client|worker)\.py$", frame.path) for frame in self.frames):
            return True
        base = [number for number, frame in enumerate(self.frames) if frame.path.endswith("/dask/base.py")]
        after = self.frames[base[-1] + 1 :] if base else ()
        return bool(after) and not any(re.search(r"/dask/(threaded|local)\.py$", frame.path) for frame in after)

    def quoted(self, frames: int = 4) -> tuple[str, ...]:
        """The user's last frames (the library's last one when there is none) and the message."""
        mine = [frame for frame in self.frames if not frame.library] or list(self.frames[-1:])
        lines = [line for frame in mine[-frames:] for line in frame.quoted()]
        lines += self.message[:6]
        if len(self.message) < 4:
            lines += [line for line in self.after if line][:4]
        if self.cause:
            lines.append(f"(caused by {self.cause})")
        return bounded(lines)


def bounded(lines: Iterable[str], count: int = MAX_LINES) -> tuple[str, ...]:
    """At most `count` printable lines of at most `MAX_CHARS` characters; what was cut is marked."""
    kept = [clean(line) for line in lines]
    if len(kept) > count:
        half = count // 2
        kept = [*kept[:half], f"... {len(kept) - count + 1} lines left out ...", *kept[len(kept) - count + half + 1 :]]
    return tuple(line if len(line) <= MAX_CHARS else f"{line[: MAX_CHARS - 4]} ..." for line in kept)


def clean(line: str) -> str:
    """Without terminal escapes, control and direction characters; a progress bar's last state only."""
    line = _ESCAPES.sub("", line.rstrip("\r\n")).rpartition("\r")[2]
    return _CONTROL.sub("\ufffd", line.expandtabs(4)).rstrip()


def last_lines(lines: Sequence[str], count: int = 8) -> tuple[str, ...]:
    """The last `count` lines that are not blank."""
    return bounded([_IN_JOB_FOLDER.sub("", line) for line in lines[-200:] if clean(line)][-count:], count)


def matching(lines: Iterable[str], pattern: str, count: int = 4) -> tuple[str, ...]:
    """The last `count` lines in which `pattern` (ignoring case) is found."""
    wanted = re.compile(pattern, re.IGNORECASE)
    return bounded([line for line in map(clean, lines) if wanted.search(line)][-count:], count)


def script_lines(lines: Iterable[str]) -> list[str]:
    """Only what the script itself printed; an exception group's parts without their margin."""
    cleaned = (_GROUP.sub("", clean(line)) for line in lines)
    found = ((line, _WORKER.match(line)) for line in cleaned)
    return [line[match.end() :] if match else line for line, match in found if not match or match["source"] == "script"]


def last_traceback(lines: Sequence[str]) -> Traceback | None:
    """The traceback that most likely ended the script, None when there is none."""
    chains = _chains(script_lines(lines))
    if not chains:
        workers = [line for line in map(clean, lines) if _WORKER.match(line)]
        chains = _chains([_WORKER.sub("", line) for line in workers])
    if not chains:
        chains = _cut_off(script_lines(lines))
    if not chains:
        return None
    own = [chain for noise, chain in chains if not noise]
    chain = own[-1] if own else chains[-1][1]
    last, first = chain[-1], chain[0]
    if last is first:
        return last
    cause = first.message[0] if first.message else first.type
    return replace(last, cause="" if cause == last.message[0] else cause)


def _chains(lines: Sequence[str]) -> list[tuple[bool, list[Traceback]]]:
    """Tracebacks in order, those that are chained together, each chain with whether it is mere noise."""
    chains: list[tuple[bool, list[Traceback]]] = []
    before = ""
    number = 0
    while number < len(lines):
        line = lines[number]
        header = line.startswith(_HEADER)
        # Python prints a syntax error of the script itself without the header.
        if header or (_FRAME.match(line) and ", in " not in line):
            found, number = _parse(lines, number + 1 if header else number)
            if found is not None:
                if before.startswith(_CHAINED) and chains:
                    chains[-1][1].append(found)
                else:
                    chains.append((bool(_NOISE.search(before)), [found]))
            before = ""
            continue
        before = line or before
        number += 1
    return chains


def _cut_off(lines: Sequence[str]) -> list[tuple[bool, list[Traceback]]]:
    """A traceback so long that its beginning is no longer in the tail."""
    for number, line in enumerate(lines):
        if _FRAME.match(line):
            found, _ = _parse(lines, number)
            return [(False, [found])] if found else []
    return []


def _parse(lines: Sequence[str], number: int) -> tuple[Traceback | None, int]:
    """One block from its first frame on, and the number of the line after it. None when it is cut off."""
    frames: list[Frame] = []
    # Dask's shortened tracebacks have marks that are not indented.
    while number < len(lines) and (lines[number].startswith("  ") or _MARKS.fullmatch(lines[number])):
        match = _FRAME.match(lines[number])
        number += 1
        if match is None:
            continue
        source = []
        while number < len(lines) and lines[number].startswith("    "):
            if match["name"] is None or not _MARKS.fullmatch(lines[number]):
                source.append(lines[number])
            number += 1
        frames.append(
            Frame(
                path=_JOB_FOLDER.sub("", match["path"]) if not _LIBRARY.search(match["path"]) else match["path"],
                line=int(match["line"]),
                name=match["name"] or "",
                source=tuple(source),
                library=bool(_LIBRARY.search(match["path"])),
            )
        )
    error = _ERROR.match(lines[number]) if number < len(lines) else None
    if error is None:
        return None, number
    message = [lines[number]]
    number += 1
    while number < len(lines) and len(message) < 8 and lines[number] and not _starts_something(lines[number]):
        message.append(lines[number])
        number += 1
    after = []
    for line in lines[number : number + 8]:
        if _starts_something(line):
            break
        after.append(line)
    return Traceback(type=error["type"], message=tuple(message), frames=tuple(frames), after=tuple(after)), number


def _starts_something(line: str) -> bool:
    return line.startswith((_HEADER, *_CHAINED)) or bool(_NOISE.search(line)) or bool(_FRAME.match(line))
