"""Delay statistics of the flights that left New York City in 2013, by carrier, airport and month.

Ordinary Dask: `Client()` finds the cluster of the run, and makes one of its own when there is none:

    python flights.py ../../data/flights ../../data/results/delays --delay departure
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dask.dataframe as dd
import pandas as pd
from dask.distributed import Client

GROUP = ["carrier", "origin", "month"]
LATE = 15  # minutes; the U.S. Department of Transportation counts a flight as late from here on


def read(folder: str, delay: str) -> dd.DataFrame:
    """One row per scheduled flight; `delay` is empty where the flight was cancelled (or diverted, for arrivals)."""
    column = {"arrival": "arr_delay", "departure": "dep_delay"}[delay]
    # One file is one partition; the pyarrow engine reads CSV several times faster than the default here.
    flights = dd.read_csv(
        f"{folder}/*.csv", blocksize=None, engine="pyarrow", usecols=[*GROUP, column], dtype={column: "float64"}
    )
    return flights.rename(columns={column: "delay"})


def summarise(flights: pd.DataFrame) -> pd.DataFrame:
    """One row per group, in minutes; `counted` flights have a delay.

    All rows of a group must be here, since medians of parts cannot be merged.
    """
    groups = flights.assign(late=flights["delay"] > LATE, missing=flights["delay"].isna()).groupby(GROUP)
    delay = groups["delay"]
    return pd.DataFrame(
        {
            "flights": groups.size(),
            "counted": delay.count(),
            "mean": delay.mean(),
            "median": delay.median(),
            "worst_tenth": delay.quantile(0.9),
            "late": groups["late"].sum() / delay.count(),
            "cancelled": groups["missing"].mean(),
        }
    ).reset_index()


def delays(flights: dd.DataFrame, *, months: tuple[int, int], min_flights: int) -> dd.DataFrame:
    """Statistics of each group that has at least `min_flights` flights; `months` = (first, last)."""
    chosen = flights[flights["month"].between(*months)]
    columns = {"carrier": "str", "origin": "str", "month": "int64", "delay": "float64"}
    empty = pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in columns.items()})
    meta = summarise(empty).astype({"flights": "int64", "counted": "int64"})
    table = chosen.shuffle(on=GROUP, shuffle_method="tasks").map_partitions(summarise, meta=meta)
    table = table[table["flights"] >= min_flights].repartition(npartitions=1)
    return table.map_partitions(lambda part: part.sort_values(GROUP, ignore_index=True))


def show(table: pd.DataFrame, *, delay: str) -> str:
    """The airlines at each airport, over all months, for people."""
    carriers = pd.read_csv(Path(__file__).with_name("carriers.csv"), index_col="carrier")["name"]
    sums = table.assign(minutes=table["mean"] * table["counted"], late=table["late"] * table["counted"])
    year = sums.groupby(["carrier", "origin"])[["flights", "counted", "minutes", "late"]].sum().reset_index()
    year["mean"] = year["minutes"] / year["counted"]
    year = year.sort_values("mean")
    lines = pd.DataFrame(
        {
            "airline": year["carrier"].map(carriers),
            "from": year["origin"],
            "flights": year["flights"],
            f"mean {delay} delay": year["mean"].map("{:+.1f} min".format),
            f"over {LATE} min": (year["late"] / year["counted"]).map("{:.0%}".format),
        }
    )
    return lines.to_string(index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flights", help="folder of CSV files")
    parser.add_argument("results", help="folder for the result, Parquet")
    parser.add_argument("--delay", choices=["arrival", "departure"], default="arrival")
    parser.add_argument("--first-month", type=int, default=1)
    parser.add_argument("--last-month", type=int, default=12)
    parser.add_argument("--min-flights", type=int, default=20)
    args = parser.parse_args()

    with Client() as client:
        print(f"reading {args.flights} with {client}")
        flights = read(args.flights, args.delay)
        table = delays(flights, months=(args.first_month, args.last_month), min_flights=args.min_flights).persist()
        # A worker writes it, under a fixed name: running again, or a task that runs twice, replaces the file.
        table.to_parquet(args.results, write_index=False, name_function=lambda _: f"{args.delay}.parquet")
        result = table.compute()

    if result.empty:
        print(f"no group has {args.min_flights} flights in months {args.first_month} to {args.last_month}")
    else:
        print(show(result, delay=args.delay))
    print(f"\n{len(result)} groups with {int(result['flights'].sum()):,} flights written to {args.results}")


if __name__ == "__main__":
    main()
