"""The results of the matrix as data beside the documentation, and the table that is made of them."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.verdict.rows import ROWS

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
DATA, PAGE = DOCS / "verdict.json", DOCS / "operations.md"
BEGIN, END = "<!-- verdict: written by make verdict -->", "<!-- verdict: end -->"
VERSIONS = ("3.3.2", "3.1.8")


@dataclass(frozen=True, kw_only=True)
class Result:
    wanted: str
    seen: str
    remark: str = ""
    date: str = ""

    @property
    def good(self) -> bool:
        return self.seen in self.wanted.split(" or ")


class Results:
    """Of one run on one version."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.rows: dict[str, Result] = {}
        self._lock = threading.Lock()

    def add(self, title: str, result: Result) -> None:
        with self._lock:
            self.rows[title] = result

    def show(self) -> bool:
        bad = [title for title, result in self.rows.items() if not result.good]
        print(f"\n{len(self.rows) - len(bad)} of {len(self.rows)} rows as wanted on Airflow {self.version}")
        for title in bad:
            result = self.rows[title]
            print(f"  {title}: wanted {result.wanted}, seen {result.seen}")
        return not bad

    def write(self) -> None:
        """Into the data, which keeps what was seen of other rows and versions, and from there into the page."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        data = json.loads(DATA.read_text()) if DATA.exists() else {}
        today = datetime.now(UTC).strftime("%Y-%m-%d")
        seen = data.setdefault(self.version, {})
        seen |= {title: {**asdict(result), "date": today} for title, result in self.rows.items()}
        DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        render(data)


def render(data: dict[str, dict[str, dict[str, str]]]) -> None:
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    dates = {version: sorted({one["date"] for one in data.get(version, {}).values()}) for version in VERSIONS}
    ran = ", ".join(f"Airflow {name} on {' and '.join(days)}" for name, days in dates.items() if days)
    lines = [
        f"Seen with {ran}.",
        "",
        f"| what happens | {' | '.join(VERSIONS)} | what catches it |",
        "|---|---|---|---|",
    ]
    for row in ROWS:
        cells = [_cell(data.get(version, {}).get(row.title), row.wanted(version)) for version in VERSIONS]
        if any(cells):
            lines.append(f"| {row.title} | {' | '.join(cells)} | {row.net} |")
    PAGE.write_text(f"{before}{BEGIN}\n{chr(10).join(lines)}\n{END}{after}")


def _cell(found: dict[str, str] | None, wanted: str) -> str:
    if found is None:
        return ""
    return found["seen"] if found["seen"] in wanted.split(" or ") else f"**{found['seen']}**, wanted {wanted}"
