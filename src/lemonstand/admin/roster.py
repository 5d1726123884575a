"""Lists of people in files: what they are to be (`users sync`), who is to be added (`user import`), who there is (`user export`)."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lemonstand.admin.people import Change, People, Person, new_identity
from lemonstand.errors import InputError, InputErrors, LemonstandError
from lemonstand.site.fields import suggest
from lemonstand.site.seeds import hash_fault

KEYS = ("name", "store", "aliases", "quota", "locked", "password_hash")
WORDS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False, "": False}
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
QUOTA = re.compile(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One person of a file.

    Args:
        where: the file, and which entry of it.
        given: what it says of him, in the form the directory keeps; what is not given stays as it is.
    """

    where: str
    name: str
    given: Mapping[str, Any]


@dataclass
class Plan:
    """What a file would make of a site's people.

    Args:
        change: that.
        lines: it in words, a line a person.
        missing: people who are in the directory and not in the file.
    """

    change: Change = field(default_factory=Change)
    lines: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def octets(text: object) -> int:
    """A quota in octets: a number, or one with K, M, G or T behind it.

    Raises:
        ValueError: it is none.
    """
    found = QUOTA.fullmatch(str(text).strip())
    if not found or isinstance(text, bool):
        raise ValueError(f"'{text}' is no quota; write octets, or a number with K, M, G or T, such as 5G")
    return int(found.group(1)) * UNITS[found.group(2).upper()]


def read(path: Path, people: People) -> list[Entry]:
    """The people of a file: a list in YAML, or CSV whose first line names the columns.

    Raises:
        InputErrors: everything that is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise InputError(f"the list can't be read: {fault}", str(path), "name a file in UTF-8") from None
    rows = _csv(text, path) if path.suffix.lower() == ".csv" else _yaml(text, path)
    entries: list[Entry] = []
    faults: list[LemonstandError] = []
    seen: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        where = f"{path} (entry {number})"
        try:
            entry = _entry(row, where, people)
            if entry.name in seen:
                raise InputError(f"{entry.name} is listed twice (the other is {seen[entry.name]})", where, "keep one of the two")
            seen[entry.name] = where
            entries.append(entry)
        except InputError as fault:
            faults.append(fault)
    if faults:
        raise InputErrors(faults)
    return entries


def _yaml(text: str, path: Path) -> list[Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as fault:
        raise InputError(
            f"this is no YAML: {' '.join(str(fault).split())[:200]}", str(path), "correct it, or give CSV in a file *.csv"
        ) from None
    rows = found.get("lemonstand_users") if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise InputError("this is no list of people", str(path), "write a list of {name, store, aliases, quota, locked}")
    return rows


def _csv(text: str, path: Path) -> list[Any]:
    reader = csv.DictReader(io.StringIO(text))
    if "name" not in (reader.fieldnames or ()):
        raise InputError("the first line names no column 'name'", str(path), f"begin with a line such as: {','.join(KEYS[:5])}")
    rows: list[Any] = []
    for row in reader:
        if None in row or None in row.values():
            raise InputError(
                f"line {reader.line_num} has another number of columns than the first",
                str(path),
                "correct it; aliases are separated by blanks",
            )
        given = {key: value.strip() for key, value in row.items()}
        # An empty cell says nothing, but for aliases, of which there are none.
        rows.append({key: value.split() if key == "aliases" else value for key, value in given.items() if value or key == "aliases"})
    return rows


def _entry(row: Any, where: str, people: People) -> Entry:
    if not isinstance(row, dict) or not row.get("name"):
        raise InputError("an entry has no name", where, "each is about somebody: {name: …}")
    for key in row:
        if key not in KEYS:
            raise InputError(f"{key}: no such key", where, suggest(str(key), list(KEYS), f"one of {', '.join(KEYS)}"))
    try:
        name = people.sound(str(row["name"]))
        given = _given(name, row, where, people)
    except InputError as fault:
        raise InputError(fault.what, where, fault.remedy) from None
    except ValueError as fault:
        raise InputError(f"{row['name']}: {fault}", where, "correct it") from None
    except KeyError:
        raise InputError(f"{row['name']}: locked is '{row['locked']}'", where, "yes or no") from None
    if row.get("password_hash"):
        fault_of_hash = hash_fault(str(row["password_hash"]))
        if fault_of_hash:
            raise InputError(f"{name}: {fault_of_hash}", where, "give another hash, or none: lemonstand user passwd sets a password")
        given["password_hash"] = str(row["password_hash"])
    return Entry(where, name, given)


def _given(name: str, row: Mapping[str, Any], where: str, people: People) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if row.get("store"):
        given["store"] = people.store_for(str(row["store"]), {})
    if row.get("aliases") is not None:
        listed = row["aliases"]
        if not isinstance(listed, list):
            raise InputError(f"{name}: aliases are no list", where, "write [a@example.org, b@example.org]")
        given["aliases"] = tuple(sorted({people.sound(str(each)) for each in listed} - {name}))
    if row.get("quota") is not None:
        given["quota"] = octets(row["quota"])
    if row.get("locked") is not None:
        given["locked"] = row["locked"] if isinstance(row["locked"], bool) else WORDS[str(row["locked"]).lower()]
    return given


def plan(
    entries: Iterable[Entry], there: Mapping[str, Person], people: People, told: Mapping[str, Mapping[str, Any]], *,
    delete_missing: bool = False, only_add: bool = False,
) -> Plan:  # fmt: skip
    """What a file would change.

    Args:
        entries: of the file.
        there: the people of the directory.
        people: of the site.
        told: how far stores and relays were told.
        delete_missing: whether who is not in the file goes.
        only_add: whether who is there already stays as he is, whatever the file says.

    Raises:
        InputErrors: an address would be two people's, or somebody would change his store. Nothing was changed.
    """
    found, faults = Plan(), []
    listed = {entry.name: entry for entry in entries}
    serving, domain = people.serving(told), people.site.settings.internal_domain
    more: dict[str, int] = {}
    for name, entry in listed.items():
        if name not in there:
            store = str(entry.given.get("store") or people.store_for(None, told, more))
            more[store] = more.get(store, 0) + 1
            user = {"name": name, "id": new_identity(name), "store": f"{serving[store]}.{domain}"}
            user |= {key: entry.given[key] for key in ("aliases", "quota", "locked", "password_hash") if entry.given.get(key)}
            found.change.add.append(user)
            found.lines.append(f"+ {name}  on {store}" + (f", also {', '.join(user['aliases'])}" if "aliases" in user else ""))
        elif not only_add:
            fault = _changed(entry, there[name], people, found)
            faults += [fault] if fault else []
    found.missing = [] if only_add else sorted(set(there) - set(listed))
    for name in found.missing:
        found.lines.append(
            f"- {name}  " + ("deleted: not in the file" if delete_missing else "not in the file; stays without --delete-missing")
        )
    if delete_missing:
        found.change.delete = list(found.missing)
    faults += _taken_twice(found.change.after(there), listed)
    if faults:
        raise InputErrors(faults)
    return found


def _changed(entry: Entry, person: Person, people: People, found: Plan) -> InputError | None:
    """Adds what is to change of somebody who is there."""
    given, name, words = entry.given, entry.name, []
    store = people.store_of(person)
    if given.get("store", store) != store:
        return InputError(
            f"{name} is on {store}, and the file says {given['store']}", entry.where, f"lemonstand user move {name} --to {given['store']}"
        )
    wanted: dict[str, Any] = {}
    if "aliases" in given and given["aliases"] != person.aliases:
        wanted["aliases"] = list(given["aliases"])
        more, less = set(given["aliases"]) - set(person.aliases), set(person.aliases) - set(given["aliases"])
        words += [f"also {', '.join(sorted(more))}"] if more else []
        words += [f"no longer {', '.join(sorted(less))}"] if less else []
    if "quota" in given and given["quota"] != person.quota:
        wanted["quota"] = given["quota"]
        words.append(f"quota {given['quota']}")
    if wanted:
        found.change.set.append({"name": name, **wanted})
    if "locked" in given and given["locked"] != person.locked:
        (found.change.lock if given["locked"] else found.change.unlock).append(name)
        words.append("locked" if given["locked"] else "unlocked")
    if words:
        found.lines.append(f"~ {name}  {'; '.join(words)}")
    return None


def _taken_twice(after: Mapping[str, Person], listed: Mapping[str, Entry]) -> list[InputError]:
    """The addresses that would be two people's."""
    owners: dict[str, str] = {}
    faults = []
    for name, person in after.items():
        for address in (name, *person.aliases):
            if address in owners and owners[address] != name:
                mine = name if name in listed else owners[address]
                where = listed[mine].where if mine in listed else "the directory"
                faults.append(InputError(f"{address} would be of {owners[address]} and of {name}", where, "leave it to one of the two"))
            owners[address] = name
    return faults


def written(there: Iterable[Person], people: People, form: str) -> str:
    """People as a file that `read` understands; no credentials are among it.

    Args:
        form: yaml or csv.
    """
    rows: list[dict[str, Any]] = []
    for person in sorted(there, key=lambda each: each.name):
        row: dict[str, Any] = {"name": person.name, "store": people.store_of(person)}
        row |= (
            {"aliases": list(person.aliases)}
            | ({"quota": person.quota} if person.quota else {})
            | ({"locked": True} if person.locked else {})
        )
        rows.append(row)
    if form == "yaml":
        # One line each: JSON is YAML, and thousands of them are read fast.
        return "".join(f"- {json.dumps(row, ensure_ascii=False)}\n" for row in rows) or "[]\n"
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(KEYS[:5])
    for row in rows:
        writer.writerow([row["name"], row["store"], " ".join(row["aliases"]), row.get("quota", ""), "yes" if row.get("locked") else ""])
    return stream.getvalue()
