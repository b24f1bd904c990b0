"""The Hadoop configuration of this machine, as a client reads it: standard library only, no Hadoop needed."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

from mayfly.errors import YarnRefused

FILES = ("core-site.xml", "yarn-site.xml")
_VARIABLE = re.compile(r"\$\{([^${}]+)\}")
_DEEPEST = 20
"""Substitutions within each other that Hadoop's own Configuration follows."""


class HadoopSite:
    """Properties of core-site.xml and yarn-site.xml of one folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """YarnRefused when a file cannot be read."""
        self.folder, self._environment = folder, environment
        self._properties: dict[str, str] = {}
        for name in FILES:
            self._properties |= _read(folder / name)

    @classmethod
    def find(cls, environment: Mapping[str, str]) -> HadoopSite:
        """In HADOOP_CONF_DIR, YARN_CONF_DIR, below HADOOP_HOME, else in /etc/hadoop/conf."""
        named = [environment.get(name) for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR")]
        homes = [environment.get(name) for name in ("HADOOP_HOME", "HADOOP_YARN_HOME")]
        places = [Path(place) for place in named if place]
        places += [Path(home, "etc", "hadoop") for home in homes if home]
        places.append(Path("/etc/hadoop/conf"))
        for place in places:
            if (place / "yarn-site.xml").is_file():
                return cls(place, environment)
        raise YarnRefused(
            f"no yarn-site.xml in {', '.join(map(str, places))}: set HADOOP_CONF_DIR to the folder with the "
            "cluster's configuration, on the driver's machine"
        )

    @property
    def yarn_site(self) -> Path:
        return self.folder / "yarn-site.xml"

    def get(self, name: str, default: str = "") -> str:
        """With `${other.property}` and `${env.NAME}` replaced; what is not known stays as it is."""
        value = self._properties.get(name, default)
        for _ in range(_DEEPEST):
            replaced = _VARIABLE.sub(self._value_of, value)
            if replaced == value:
                break
            value = replaced
        return value.strip()

    def is_set(self, name: str) -> bool:
        return self.get(name).lower() == "true"

    def _value_of(self, match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("env."):
            variable, _, fallback = name.removeprefix("env.").partition(":-")
            return self._environment.get(variable, fallback or match[0])
        if name == "user.name":
            return self._environment.get("USER", match[0])
        return self._properties.get(name, match[0])


def _read(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        root = ElementTree.fromstring(file.read_bytes())
    except (OSError, ElementTree.ParseError) as error:
        raise YarnRefused(f"{file} cannot be read ({error}); it must be Hadoop's own XML") from error
    found = {}
    for told in root.iter("property"):
        name, value = told.findtext("name"), told.findtext("value")
        if name and value is not None:
            found[name.strip()] = value
    return found


def user_of(environment: Mapping[str, str]) -> str:
    """As whom Hadoop's clients act without Kerberos."""
    if name := environment.get("HADOOP_USER_NAME"):
        return name
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return environment.get("USER") or str(os.getuid())
