"""People of a running site: written in the directory, then told to stores and relays, without an apply (record 0041)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lemonstand.admin.access import Hosts
from lemonstand.admin.placement import PLACEMENT, PYTHON, Placement, heard, newest, serving, told_hosts
from lemonstand.admin.users import Users
from lemonstand.errors import InputError, LemonstandError
from lemonstand.policy.names import load_names
from lemonstand.site import Site
from lemonstand.site.fields import suggest

DELETED_MAIL = (*PYTHON, "/usr/local/lib/lemonstand/deleted_mail.py")
FEWEST = 0.5
"""Of the people that stores and relays know, the directory has more than this part; else it is taken for damaged."""
PART = 500
"""Entries of one order to the directory."""
STAMP = "%Y%m%dT%H%M%SZ"
"""How a store writes down when a home went aside."""


@dataclass(frozen=True)
class Person:
    """Somebody as the directory knows him.

    Args:
        store: the inner name of the host that has his mail.
        quota: octets he may keep; 0: as many as the site says (lemonstand_quota).
        id: stays whatever his name is; the name itself of who was seeded and never renamed.
        state: active, locked, no password.
    """

    name: str
    store: str
    aliases: tuple[str, ...] = ()
    quota: int = 0
    id: str = ""
    state: str = "active"
    locked: bool = False
    password_set: str = ""

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Person:
        """From what the directory's program says."""
        return cls(**{**said, "aliases": tuple(said["aliases"])})


@dataclass(frozen=True)
class Kept:
    """A deleted user's mail, as a store keeps it."""

    host: str
    home: str
    name: str
    when: datetime
    messages: int
    octets: int


@dataclass
class Change:
    """What is to become of some people, in the form of the directory's order."""

    add: list[dict[str, Any]] = field(default_factory=list)
    rename: list[dict[str, str]] = field(default_factory=list)
    set: list[dict[str, Any]] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    lock: list[str] = field(default_factory=list)
    unlock: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many people it is about."""
        return sum(len(each) for each in vars(self).values())

    def order(self, edition: int) -> dict[str, Any]:
        """What the directory is told."""
        return {"action": "people", "edition": edition, **{key: value for key, value in vars(self).items() if value}}

    def parts(self) -> Iterator[Change]:
        """The same in orders that end soon."""
        for kind, entries in vars(self).items():
            for begin in range(0, len(entries), PART):
                yield Change(**{kind: entries[begin : begin + PART]})

    def after(self, people: Mapping[str, Person]) -> dict[str, Person]:
        """The people after it, of those before it."""
        found = dict(people)
        for each in self.rename:
            old, new = found.pop(each["name"]), each["to"]
            aliases = tuple(sorted({*old.aliases, old.name} - {new}))
            found[new] = Person(**{**vars(old), "name": new, "aliases": aliases, "id": old.id or old.name})
        for each in self.set:
            given = {key: value for key, value in each.items() if key in {"aliases", "quota"}}
            found[each["name"]] = Person(**{**vars(found[each["name"]]), **given})
        for name in self.delete:
            found.pop(name, None)
        found |= {each["name"]: newcomer(each) for each in self.add}
        for names, locked in ((self.lock, True), (self.unlock, False)):
            found |= {name: Person(**{**vars(found[name]), "locked": locked}) for name in names}
        return found


def newcomer(entry: Mapping[str, Any]) -> Person:
    """Somebody who is being added."""
    aliases, locked = tuple(entry.get("aliases", ())), bool(entry.get("locked"))
    return Person(entry["name"], entry["store"], aliases, int(entry.get("quota", 0)), entry["id"], "locked" if locked else "active", locked)


def new_identity(name: str) -> str:
    """Who somebody is, whatever his name will be: nobody had it before, though his name may have been another's."""
    return f"{name} {time.time_ns():x}"


def lists_of(people: Iterable[Person], pair_of: Mapping[str, str]) -> dict[str, Any]:
    """What stores and relays are told of people: no credentials are among it.

    Args:
        people: of the directory.
        pair_of: {inner name of a host: the store it serves for}.
    """
    everybody = list(people)
    return {
        "users": {each.name: pair_of[each.store] for each in everybody if each.store in pair_of},
        "aliases": {alias: each.name for each in everybody for alias in each.aliases},
        "ids": {each.name: each.id for each in everybody if each.id not in ("", each.name)},
        "quotas": {each.name: each.quota for each in everybody if each.quota},
        "locked": sorted(each.name for each in everybody if each.locked),
    }


def steps_between(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What turns some lists into others: {kind: {key: value, or None where it goes}}."""
    steps: dict[str, Any] = {}
    for kind in after.keys() - {"locked"}:
        gone = {key: None for key in before[kind] if key not in after[kind]}
        steps[kind] = {**gone, **{key: value for key, value in after[kind].items() if before[kind].get(key) != value}}
    locked, unlocked = set(after["locked"]) - set(before["locked"]), set(before["locked"]) - set(after["locked"])
    steps["locked"] = {**dict.fromkeys(sorted(locked), True), **dict.fromkeys(sorted(unlocked))}
    return steps


def changes_to(people: Mapping[str, Person], lists: Mapping[str, Any], host_of: Mapping[str, str]) -> list[Change]:
    """What brings a directory to what stores and relays were told, in the order in which it has to be done. Nobody has a password by it.

    Args:
        people: of the directory, by name.
        lists: as `lists_of` makes them.
        host_of: {store: inner name of the host that serves it}.
    """
    now = {lists["ids"].get(name, name): name for name in lists["users"]}
    rename = [
        {"name": each.name, "to": now[each.id or each.name]}
        for each in people.values()
        if now.get(each.id or each.name, each.name) != each.name
    ]
    delete = sorted(each.name for each in people.values() if (each.id or each.name) not in now)
    first = Change(rename=rename, delete=delete)
    there = first.after(people)
    own: dict[str, list[str]] = {}
    for alias, name in lists["aliases"].items():
        own.setdefault(name, []).append(alias)
    locked = set(lists["locked"])
    add: list[dict[str, Any]] = [
        {
            "name": name,
            "id": lists["ids"].get(name, name),
            "store": host_of[store],
            "aliases": sorted(own.get(name, [])),
            "quota": lists["quotas"].get(name, 0),
            "locked": name in locked,
        }
        for name, store in sorted(lists["users"].items())
        if name not in there
    ]
    differing = [
        {"name": name, "aliases": sorted(own.get(name, [])), "quota": lists["quotas"].get(name, 0)}
        for name in sorted(there.keys() & lists["users"].keys())
        if (sorted(there[name].aliases), there[name].quota) != (sorted(own.get(name, [])), lists["quotas"].get(name, 0))
    ]
    lock = sorted(name for name in there if name in locked and not there[name].locked)
    unlock = sorted(name for name in there if name not in locked and there[name].locked and name in lists["users"])
    return [each for each in (first, Change(set=differing, lock=lock, unlock=unlock), Change(add=add)) if each.count]


class People:
    """Changes people: the directory first, then the lists of stores and relays, so that a command that was cut off can be given again.

    Args:
        site: the validated model.
        hosts: a way to its hosts.
        say: is told each step.
    """

    def __init__(self, site: Site, hosts: Hosts, say: Callable[[str], None]) -> None:
        self.site = site
        self._hosts = hosts
        self._say = say
        self._users = Users(site, hosts, say)
        domain = site.settings.internal_domain
        self._pair_of = {f"{host}.{domain}": store for store, members in site.pairs.items() for host in members}

    # --- what there is ---

    def everybody(self) -> dict[str, Person]:
        """All people of the directory, by name."""
        return self.everybody_now()[0]

    def everybody_now(self) -> tuple[dict[str, Person], int]:
        """All people of the directory, by name, and its edition."""
        return self._asked({"action": "list"})

    def _asked(self, order: dict[str, Any]) -> tuple[dict[str, Person], int]:
        answer = self._users.order(order)[1]
        return {each["name"]: Person.of(each) for each in answer["users"]}, int(answer["edition"])

    def look(self, names: Iterable[str]) -> tuple[dict[str, Person], int]:
        """Who has some addresses, as a name or as an alias, and the edition of the directory."""
        return self._asked({"action": "look", "names": sorted(set(names))})

    def seen(self, names: Iterable[str]) -> tuple[tuple[dict[str, Person], int], tuple[dict[str, dict[str, Any]], dict[str, str]]]:
        """Who has some addresses, and how far stores and relays were told, asked at once."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            told = pool.submit(self.summaries)
            return self.look(names), told.result()

    def summaries(self) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """How far stores and relays were told, and who of them gave no answer."""
        found, unasked = heard(self._hosts, told_hosts(self.site), "summary")
        if not found:
            raise LemonstandError(
                "no store and no relay can be told of people", ", ".join(unasked), "see that they are up; nothing was changed"
            )
        return found, unasked

    def serving(self, told: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """The host that serves each store, by the newest word."""
        newest = max(told.values(), key=lambda each: int(each["generation"]))
        return {store: serving(newest, store) for store in self.site.pairs}

    def store_of(self, person: Person) -> str:
        """The store that has somebody's mail, by its name in the inventory."""
        return self.store_at(person.store)

    def store_at(self, host: str) -> str:
        """The store that a host, by its inner name, serves for."""
        return self._pair_of.get(host, host.partition(".")[0])

    def judged_behind(self, name: str) -> str:
        """The directory that judges a user's password in place of this site's; empty: none."""
        service = self.site.settings.services.directory
        return service.name if service is not None and service.judges(name) else ""

    def lists(self) -> dict[str, Any]:
        """What stores and relays should have been told."""
        return lists_of(self.everybody().values(), self._pair_of)

    # --- what may be ---

    def sound(self, address: str) -> str:
        """An address of this site in the form in which it is kept.

        Raises:
            InputError: it can't be one.
        """
        names, domains = load_names(), self.site.settings.mail_domains
        text = names.canonical(address)
        fault = names.address_fault(text)
        if fault:
            raise InputError(f"'{address}' is no mail address here", "the name", fault)
        domain = text.rpartition("@")[2]
        if domain not in domains:
            raise InputError(
                f"{text} is in no mail domain of this site",
                str(self.site.inventory),
                suggest(domain, domains, f"one of {', '.join(domains)}"),
            )
        return text

    def store_for(self, wanted: str | None, told: Mapping[str, Mapping[str, Any]], more: Mapping[str, int] | None = None) -> str:
        """The store that is named, or the one with the fewest users."""
        stores = list(self.site.pairs)
        if wanted is None:
            newest = max(told.values(), key=lambda each: int(each["edition"]))
            return min(stores, key=lambda store: int(newest["counts"].get(store, 0)) + (more or {}).get(store, 0))
        if wanted not in stores:
            raise InputError(f"there is no store '{wanted}'", "--store", suggest(wanted, stores, f"one of {', '.join(stores)}"))
        return wanted

    @staticmethod
    def _owner(address: str, people: Mapping[str, Person]) -> Person | None:
        return people.get(address) or next((each for each in people.values() if address in each.aliases), None)

    def _free(self, address: str, people: Mapping[str, Person], whose: str = "") -> None:
        """Refuses an address somebody else has."""
        owner = self._owner(address, people)
        if owner is None or owner.name == whose:
            return
        if owner.name == address:
            raise InputError(f"{address} is a user", "the directory", "take another address, or delete that user")
        raise InputError(
            f"{address} is an alias of {owner.name}", "the directory",
            f"take another address, or first: lemonstand user alias {owner.name} --remove {address}",
        )  # fmt: skip

    def known(self, name: str, people: Mapping[str, Person]) -> Person:
        """Somebody by his name.

        Raises:
            InputError: there is nobody, and what to type.
        """
        if name in people:
            return people[name]
        owner = self._owner(name, people)
        remedy = (
            f"{owner.name} has that alias; name the user"
            if owner
            else f"`lemonstand user list` shows who there is; lemonstand user add {name}"
        )
        raise InputError(f"'{name}' is not in the directory", "the directory", remedy)

    # --- changes ---

    def add(self, name: str, *, store: str | None = None, aliases: Sequence[str] = (), quota: int = 0, password: str | None = None) -> str:
        """Adds a user; returns his store.

        Raises:
            InputError: the name or an alias is taken or can't be one, or there is no such store. Nothing was changed.
        """
        user, own = self.sound(name), [self.sound(alias) for alias in aliases]
        if password is not None:
            self._users.own_password(user)
        (people, edition), (told, unasked) = self.seen([user, *own])
        for alias in own:
            self._free(alias, people, user)
        if user in people:
            return self._again(people[user], told, unasked, password)
        self._free(user, people)
        where = self.store_for(store, told)
        host = self.ready(where, told, unasked)
        entry = {"name": user, "id": new_identity(user), "store": host, "aliases": sorted({*own} - {user}), "quota": quota}
        change = Change(add=[entry | ({"password": password} if password else {})])
        self.carry_out(change, people, edition, told, unasked)
        lacks = "" if password or self.judged_behind(user) else f"; no password yet: lemonstand user passwd {user}"
        self._say(f"{user}: added on {where}{lacks}")
        self.tell_room(told, 1)
        return where

    def _again(self, person: Person, told: Mapping[str, Mapping[str, Any]], unasked: Mapping[str, str], password: str | None) -> str:
        """Ends what an `add` that was cut off had begun; one that had not is refused."""
        lacked = self.push(told, unasked)
        first = password is not None and person.state == "no password"
        if not lacked and not first:
            raise InputError(
                f"{person.name} is a user already",
                "the directory",
                f"another name; a password of his own: lemonstand user passwd {person.name}",
            )
        if password is not None and first:
            self._users.passwd(person.name, password)
        self._say(f"{person.name}: was in the directory; {'stores and relays know it now' if lacked else 'has a password now'}")
        return self._pair_of.get(person.store, person.store)

    def ready(self, store: str, told: Mapping[str, Mapping[str, Any]], unasked: Mapping[str, str]) -> str:
        """The inner name of the host that serves a store, which has to answer: else a relay would take mail that nobody knows."""
        host = self.serving(told)[store]
        if host in unasked:
            raise LemonstandError(
                f"{host}, which serves {store}, gives no answer: {unasked[host]}",
                host,
                "see that it is up, or name another store; nothing was changed",
            )
        return f"{host}.{self.site.settings.internal_domain}"

    def passwd(self, name: str, password: str) -> None:
        """Sets a password; open sessions stay."""
        self._users.passwd(name, password)

    def rename(self, name: str, to: str) -> None:
        """Gives a user another name; mail stays, and the old name is an alias."""
        user, new = self.known_name(name), self.sound(to)
        (people, edition), (told, unasked) = self.seen([user, new])
        if new in people and user in people[new].aliases and user not in people:
            if not self.push(told, unasked):
                raise InputError(f"{new} has the alias {user} already", "the directory", "nothing is to be done")
            self._say(f"{new}: was renamed in the directory; stores and relays know it now")
            return
        person = self.known(user, people)
        self._free(new, people, user)
        if person.store in self._pair_of:
            self.ready(self._pair_of[person.store], told, unasked)
        self.carry_out(Change(rename=[{"name": user, "to": new}]), people, edition, told, unasked)
        self._say(f"{user}: is {new} now and logs in by that name; {user} is an alias")

    def alias(self, name: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> tuple[str, ...]:
        """Gives a user addresses and takes some away; returns those he has then."""
        user = self.known_name(name)
        more, less = [self.sound(each) for each in add], {load_names().canonical(each) for each in remove}
        (people, edition), (told, unasked) = self.seen([user, *more])
        person = self.known(user, people)
        for alias in more:
            self._free(alias, people, user)
        for alias in sorted(less - set(person.aliases)):
            raise InputError(
                f"{alias} is no alias of {user}", "--remove", suggest(alias, list(person.aliases), "`lemonstand user list` shows them")
            )
        wanted = tuple(sorted({*person.aliases, *more} - less - {user}))
        if not more and not less:
            return wanted
        if wanted == person.aliases:
            self.push(told, unasked)
        else:
            self.carry_out(Change(set=[{"name": user, "aliases": list(wanted)}]), people, edition, told, unasked)
        self._say(f"{user}: {', '.join(wanted) or 'no alias'}")
        return wanted

    def quota(self, name: str, size: int) -> None:
        """Says how much a user may keep: octets, or 0 for as much as the site says of everybody."""
        user = self.known_name(name)
        (people, edition), (told, unasked) = self.seen([user])
        if self.known(user, people).quota == size:
            self.push(told, unasked)
        else:
            self.carry_out(Change(set=[{"name": user, "quota": size}]), people, edition, told, unasked)
        self._say(f"{user}: may keep {size} octets" if size else f"{user}: may keep as much as the site says of everybody")

    def lock(self, name: str, *, locked: bool) -> None:
        """Keeps a user out, or lets him in again: in the directory, and at stores for tickets of before."""
        user = self.known_name(name)
        (people, edition), (told, unasked) = self.seen([user])
        self.known(user, people)
        self.carry_out(Change(lock=[user]) if locked else Change(unlock=[user]), people, edition, told, unasked)
        self._say(f"{user}: locked; no new session, and his sessions are ended" if locked else f"{user}: unlocked")

    def delete(self, name: str) -> None:
        """Ends an account: no login and no delivery from now on; mail goes aside."""
        user = self.known_name(name)
        (people, edition), (told, unasked) = self.seen([user])
        days = self.site.settings.deleted_mail_days
        if user not in people:
            if not self.push(told, unasked):
                self.known(user, people)
            self._say(f"{user}: was deleted in the directory; stores and relays know it now")
            return
        self.carry_out(Change(delete=[user]), people, edition, told, unasked)
        self._say(f"{user}: deleted; his mail is kept aside for {days} days: lemonstand user purge")

    def known_name(self, name: str) -> str:
        """A name as it is kept."""
        return load_names().canonical(name)

    def tell_room(self, told: Mapping[str, Mapping[str, Any]], more: int) -> None:
        """Says so where there are more people than limits were made for."""
        newest = max(told.values(), key=lambda each: int(each["edition"]))
        there = sum(int(each) for each in newest["counts"].values()) + more
        if there > self.site.settings.room:
            self._say(
                f"{there} users, and limits are made for {self.site.settings.room}: set lemonstand_room_for in the inventory and apply, "
                "before they all connect at once"
            )

    # --- directory first, then the lists ---

    def carry_out(
        self, change: Change, people: dict[str, Person], edition: int, told: dict[str, dict[str, Any]], unasked: dict[str, str]
    ) -> None:
        """Has a change written in the directory and told to everybody.

        Args:
            change: what.
            people: of the directory before it, at least all whom it concerns.
            edition: of the directory before it.
            told: how far each host was told.
            unasked: hosts that gave no answer.
        """
        number = max([edition, *(int(each["edition"]) for each in told.values())]) + 1
        for part in change.parts():
            self._users.change(part.order(number))
        after = change.after(people)
        steps = steps_between(lists_of(people.values(), self._pair_of), lists_of(after.values(), self._pair_of))
        base = {(int(each["edition"]), str(each["digest"])) for each in told.values() if int(each["edition"]) == edition}
        order: dict[str, Any] = {"action": "people", "edition": number, "since": edition, **steps}
        order["digest"] = next(iter(base))[1] if len(base) == 1 else ""
        self._tell(order, number, unasked, adds=any(value is not None for kind in ("users", "aliases") for value in steps[kind].values()))

    def push(
        self, told: Mapping[str, Mapping[str, Any]] | None = None, unasked: Mapping[str, str] | None = None, *, sure: bool = False
    ) -> list[str]:
        """Tells stores and relays all that the directory has; returns those that lacked something.

        Args:
            told: how far each host was told; None: they are asked.
            unasked: hosts that gave no answer.
            sure: also if most people would go.

        Raises:
            LemonstandError: a directory that lost its people would take everybody's mailbox away; or some hosts could not be told.
        """
        if told is None or unasked is None:
            told, unasked = self.summaries()
        answer = self._users.order({"action": "list"})[1]
        lists = lists_of((Person.of(each) for each in answer["users"]), self._pair_of)
        most = max(sum(int(count) for count in each["counts"].values()) for each in told.values())
        if not sure and len(lists["users"]) < FEWEST * most:
            raise LemonstandError(
                f"the directory has {len(lists['users'])} people, and stores and relays know {most}: nobody was told",
                "the directory",
                "if it lost people, restore it (lemonstand restore directory); if they are to go: lemonstand users push --yes",
            )
        number = max([int(answer["edition"]), *(int(each["edition"]) for each in told.values())])
        before = {host: str(each["digest"]) for host, each in told.items()}
        after = self._tell({"action": "people", "edition": number, "all": lists}, number, unasked, adds=True)
        return sorted(host for host, digest in after.items() if before.get(host) != digest)

    def _tell(self, order: dict[str, Any], number: int, unasked: Mapping[str, str], *, adds: bool) -> dict[str, str]:
        """Tells stores and relays; who lacks more than that is told all. Returns the digest of each.

        Raises:
            LemonstandError: some could not be told.
        """
        groups = [[host.name for host in self.site.group(group)] for group in ("stores", "relays")]
        digests: dict[str, str] = {}
        lost = dict(unasked)
        # Nobody's mail is taken before his store knows him, and nobody's is handed to a store that knows him no more.
        for group in groups if adds else reversed(groups):
            asked = [host for host in group if host not in unasked]
            answers = self._hosts.run_on(asked, PLACEMENT, json.dumps(order) + "\n")
            behind = [host for host, answer in answers.items() if isinstance(answer, str) and json.loads(answer)["behind"]]
            if behind:
                people = self.everybody().values()  # of whom some were changed a moment ago
                whole = {"action": "people", "edition": number, "all": lists_of(people, self._pair_of)}
                answers |= self._hosts.run_on(behind, PLACEMENT, json.dumps(whole) + "\n")
            for host, answer in answers.items():
                if isinstance(answer, LemonstandError):
                    lost[host] = answer.what
                else:
                    digests[host] = str(json.loads(answer)["digest"])
            if adds and any(host in lost and host not in unasked for host in group):
                break
        if lost:
            host, why = next(iter(lost.items()))
            raise LemonstandError(
                f"it is in the directory, and {', '.join(sorted(lost))} could not be told: {why}",
                host,
                "see that they are up, then: lemonstand users push",
            )
        return digests

    # --- a directory of an earlier time ---

    def recover(self) -> list[Change] | None:
        """Brings a directory that came from a backup to what stores and relays were told since; safe to repeat.

        Returns:
            What was changed, or None if no store and no relay could be asked. Whom it adds has no password: they never knew one.

        Raises:
            LemonstandError: the directory could not be changed.
        """
        found, _ = heard(self._hosts, told_hosts(self.site), "show")
        if not found:
            return None
        lists = newest(found)
        people, edition = self.everybody_now()
        hosts = {store: f"{serving(lists, store)}.{self.site.settings.internal_domain}" for store in self.site.pairs}
        done = []
        if int(lists["edition"]) >= edition:  # as many: this was begun before, and cut off
            done = changes_to(people, {**lists, "users": {name: store for name, store in lists["users"].items() if store in hosts}}, hosts)
            for change in done:
                for part in change.parts():
                    self._users.change(part.order(int(lists["edition"])))
            people = self.everybody() if done else people
        elsewhere = {
            name: hosts[lists["users"][name]].partition(".")[0]
            for name, each in people.items()
            if lists["users"].get(name) in hosts and each.store.lower() != hosts[lists["users"][name]].lower()
        }
        if elsewhere:
            Placement(self.site, self._hosts, self._say).place(elsewhere)
        return done

    # --- mail of people who are gone ---

    def kept_mail(self) -> list[Kept]:
        """The mail of deleted users that stores keep, oldest first.

        Raises:
            LemonstandError: a store can't say.
        """
        found = []
        for host, answer in self._hosts.run_on(
            [each.name for each in self.site.group("stores")], DELETED_MAIL, '{"action": "list"}\n'
        ).items():
            if isinstance(answer, LemonstandError):
                raise answer
            for each in json.loads(answer)["kept"]:
                when = datetime.strptime(each["when"], STAMP).replace(tzinfo=UTC)
                found.append(Kept(host, each["home"], each["name"], when, int(each["messages"]), int(each["octets"])))
        return sorted(found, key=lambda each: each.when)

    def over(self, kept: Iterable[Kept], now: datetime | None = None) -> list[Kept]:
        """Those whose time is over."""
        limit = (now or datetime.now(UTC)) - timedelta(days=self.site.settings.deleted_mail_days)
        return [each for each in kept if each.when <= limit]

    def purge(self, kept: Iterable[Kept]) -> None:
        """Removes mail that stores keep of deleted users.

        Raises:
            LemonstandError: a store can't.
        """
        by_host: dict[str, list[str]] = {}
        for each in kept:
            by_host.setdefault(each.host, []).append(each.home)
        for host, homes in by_host.items():
            answer = json.loads(self._hosts.run(host, DELETED_MAIL, json.dumps({"action": "remove", "homes": homes}) + "\n"))
            if "error" in answer:
                raise LemonstandError(f"{host}: {answer['error']}", host, "mend that, and give the command again")
            self._say(f"{host}: {len(answer['removed'])} removed")
