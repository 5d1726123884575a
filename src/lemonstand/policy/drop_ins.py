"""What a site's own text for Dovecot or for a service may not touch (`drop_ins.yml`, docs/decisions/0052)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from lemonstand.paths import data_dir
from lemonstand.policy.own_settings import Kept, load_own_settings
from lemonstand.policy.text import read_shipped

DATA = Path(__file__).with_suffix(".yml")
DOVECOT = "dovecot"
SETTING = re.compile(r"([a-z][a-z0-9_]*)\s*=\s*(.*)")
BLOCK = re.compile(r"([a-z_]+)\s+([A-Za-z0-9.:/*_-]+)\s*\{")
ASSIGNED = re.compile(r"([A-Za-z0-9]+)\s*=(.*)")
NO_FORM = "it is in no form that is judged"


class Refusal(NamedTuple):
    """A line that is not the site's to write.

    Args:
        line: its number, from 1.
        what: the name in it, or the line itself.
        why: the reason, with the controls that depend on it.
    """

    line: int
    what: str
    why: str


class Dovecot(BaseModel):
    """The blocks a site may write: those for some sessions, and what the block of a service may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blocks: tuple[str, ...]
    services: tuple[str, ...]


class Systemd(BaseModel):
    """The settings of a service that are free, and what others are about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    free: str
    kept: tuple[Kept, ...]


class DropIns(BaseModel):
    """What texts may hold, by the language they are in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dovecot: Dovecot
    systemd: Systemd

    def refusals(self, group: str, program: str, text: str) -> Iterator[Refusal]:
        """The lines of a text that are not the site's to write.

        Args:
            group: the kind of hosts it is for.
            program: `dovecot`, or a unit.
        """
        judge = self._dovecot(group, text) if program == DOVECOT else self._systemd(program, text)
        # Whatever else may end a line for one program and not for another is in no text.
        for number, line in enumerate(text.split("\n"), 1):
            if line.rstrip().endswith("\\") or not line.replace("\t", "").isprintable():
                yield Refusal(number, line.strip(), f"{NO_FORM}: it goes on in the next line, or has a control character")
                return
        yield from judge

    def _dovecot(self, group: str, text: str) -> Iterator[Refusal]:
        settings = load_own_settings()[DOVECOT]
        taken = _services(settings.files[group])
        opened: list[tuple[str, str]] = []
        for number, line in _lines(text, "#"):
            block, setting = BLOCK.fullmatch(line), SETTING.fullmatch(line)
            inside = opened[-1] if opened else ("", "")
            if line == "}" and opened:
                opened.pop()
            elif block:
                opened.append((block[1], block[2]))
                if inside[0] == "service" or block[1] not in (*self.dovecot.blocks, *(() if inside[0] else ("service",))):
                    known = ", ".join(self.dovecot.blocks)
                    yield Refusal(number, line, f"of Dovecot's blocks a site may write {known}, and outside them service")
                    return
            elif not setting or "$" in setting[2] or setting[2].startswith("<"):
                yield Refusal(number, line, f"{NO_FORM}: a comment, NAME = VALUE without $ and <, KIND NAME {{, or }}")
            elif inside[0] != "service":
                if why := settings.refusal(group, setting[1]):
                    yield Refusal(number, setting[1], why)
            elif setting[1] not in self.dovecot.services:
                yield Refusal(number, setting[1], f"LEM-8-12 depends on it: of a service a site may set {', '.join(self.dovecot.services)}")
            elif (inside[1], setting[1]) in taken:
                yield Refusal(number, setting[1], f"{settings.files[group]} sets it for the service {inside[1]}")
        if opened:
            yield Refusal(len(text.split("\n")), "the end", f"{len(opened)} blocks are not closed with }}")

    def _systemd(self, unit: str, text: str) -> Iterator[Refusal]:
        section, taken, free = "", _unit_settings(unit), self.systemd.free.split()
        for number, line in _lines(text, "#;"):
            header, found = re.fullmatch(r"\[([A-Za-z-]+)\]", line), ASSIGNED.fullmatch(line)
            if header:
                section = header[1]
            elif not found:
                yield Refusal(number, line, f"{NO_FORM}: a comment, [Service], or NAME=VALUE")
            elif section != "Service" or found[1] not in free:
                yield Refusal(number, found[1], self._reason(found[1], section))
            elif found[1] in taken:
                yield Refusal(number, found[1], f"{taken[found[1]]} sets it")

    def _reason(self, name: str, section: str) -> str:
        """Why a setting of a unit is not free."""
        for each in self.systemd.kept:
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in each.names.split()) and name not in self.systemd.free.split():
                return f"{', '.join(each.controls)} depend on it: it is about {each.about}"
        where = "" if section == "Service" else f", and that in [Service], not {f'in [{section}]' if section else 'above all sections'}"
        return f"of a unit a site may set {self.systemd.free} alone{where}"


def _lines(text: str, comments: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and line.strip()[0] not in comments:
            yield number, line.strip()


@cache
def _services(file: str) -> frozenset[tuple[str, str]]:
    """What a role's file of Dovecot's sets of services: (service, setting), whatever the template chooses."""
    first, _, rest = file.partition("/")
    blocks = re.findall(r"^service (\S+) \{\n(.*?)^\}", (data_dir(first) / rest).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return frozenset((service, name) for service, body in blocks for name in re.findall(r"^  (\w+) =", body, re.MULTILINE))


@cache
def _unit_settings(unit: str) -> dict[str, str]:
    """What roles set of a unit, each with the file that does; those of labs aside."""
    found = {}
    for path in sorted(data_dir("roles").glob("*/templates/etc/systemd/system/**/*.j2")):
        place = path.relative_to(data_dir("roles"))
        if (path.name == f"{unit}.j2" or path.parent.name == f"{unit}.d") and not place.parts[0].startswith("lab_"):
            names = re.findall(r"^([A-Z]\w+)=", path.read_text(encoding="utf-8"), re.MULTILINE)
            found.update(dict.fromkeys(names, f"roles/{place}"))
    return found


@cache
def load_drop_ins(path: Path = DATA) -> DropIns:
    """What texts may hold.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    return read_shipped(path, "drop-ins", DropIns.model_validate)
