"""Mayfly's part of Airflow's UI, where the plugins folder holds Mayfly. An installed wheel needs no such file."""

from __future__ import annotations

from mayfly.airflow.plugin import MayflyPlugin

__all__ = ["MayflyPlugin"]
