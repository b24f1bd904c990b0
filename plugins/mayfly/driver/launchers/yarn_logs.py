"""What a container has written, from its NodeManager: there until the application ends, also of a container that has
died. For those that died before their worker could speak for itself."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

BYTES = 64 << 10
SECONDS = 3.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def container_log(container: Any) -> str:
    """The end of what the worker's service wrote in this container (skein's); empty when nobody can tell. Blocking."""
    node, name = str(container.yarn_node_http_address or ""), str(container.yarn_container_id or "")
    if not node or not name:
        return ""
    address = f"{node if '//' in node else f'http://{node}'}/ws/v1/node/containerlogs/{name}/worker.log?size=-{BYTES}"
    try:
        with _DIRECT.open(address, timeout=SECONDS) as answer:
            text: str = answer.read(4 * BYTES).decode("utf-8", "replace")
    except (OSError, ValueError, urllib.error.URLError):
        return ""
    return "\n".join(line for line in text.splitlines() if not _frame(line)).strip()


_FRAMES = ("Container: container_", "LogType:", "LogLastModifiedTime:", "LogLength:", "LogContents:", "End of LogType:")


def _frame(line: str) -> bool:
    """The NodeManager's own lines around the contents."""
    return line.startswith((*_FRAMES, "====", "****"))


def last_lines(text: str, count: int = 8) -> str:
    return "\n".join(text.splitlines()[-count:])
