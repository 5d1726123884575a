"""Looks for a secret on a host: files, deleted files still open, journal, arguments, environments, core dumps, and memory.

Runs on the searched host as root. What is looked for arrives over standard input, so the probe itself and the processes that carry it are
left out of the search. Every search first plants a harmless word of its own in each kind of place and finds it: a search that could not
see would not be believed.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import lzma
import os
import secrets
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint

SHORTEST = 12
"""Characters a needle must have: shorter ones would be found by chance, base64 of them in part."""
BLOCK = 1 << 20
KERNELS = {"proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs", "bpf", "mqueue", "nfs", "nfs4"}
"""File systems that hold no file of this host, or files of another."""
ALWAYS = ("/dev/shm", "/home", "/root", "/run", "/srv", "/tmp", "/var")  # noqa: S108 - read, not written
"""Searched whole; elsewhere only what was changed since. Memory-mapped files may be written without a new time."""
CORE_PLACES = ("/var/lib/systemd/coredump", "/var/crash", "/var/cores")
MOST_HITS = 50


def forms(needle: str) -> dict[str, bytes]:
    """How a secret may look in storage: as it is, in base64 at each of three offsets, in URLs, in hexadecimal digits, in UTF-16."""
    raw = needle.encode()
    found = {"plain": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode(), "utf-16": needle.encode("utf-16-le")}
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + raw)
        # The first and the last digits depend on what stands beside the secret.
        first, last = (0, 2, 3)[offset], len(coded) - (0, 3, 2)[(offset + len(raw)) % 3]
        found[f"base64+{offset}"] = coded[first:last]
        found[f"base64url+{offset}"] = coded[first:last].translate(bytes.maketrans(b"+/", b"-_"))
    found |= {"url": quote(needle, safe="").encode(), "form": quote_plus(needle).encode()}
    kept: dict[str, bytes] = {}
    for name, form in found.items():
        if form not in kept.values():
            kept[name] = form
    return kept


class Needles:
    """What is looked for. Results never show it: a hit names its number and form.

    Args:
        texts: the secrets.
    """

    def __init__(self, texts: list[str]) -> None:
        short = [text for text in texts if len(text) < SHORTEST]
        if short:
            raise ValueError(f"{len(short)} secrets are shorter than {SHORTEST} characters and would be found by chance")
        self.forms = [(f"{number}:{name}", form) for number, text in enumerate(texts) for name, form in forms(text).items()]
        self.overlap = max(len(form) for _, form in self.forms) - 1

    def within(self, data: bytes) -> set[str]:
        """The forms that stand in some bytes."""
        return {name for name, form in self.forms if form in data}

    def in_stream(self, blocks: Iterator[bytes]) -> set[str]:
        """The forms that stand in a stream, also across its blocks."""
        found: set[str] = set()
        tail = b""
        for block in blocks:
            data = tail + block
            found |= self.within(data)
            tail = data[-self.overlap :]
        return found


def search(needles: list[str], since: float) -> dict[str, Any]:
    """Searches this host.

    Args:
        needles: the secrets, each of twelve characters or more.
        since: Unix time; files changed earlier are left out where nobody writes through memory. 0: all files.

    Returns:
        `hits`: `{place, where, forms}` for disk, deleted, journal, argument, environment, core; `memory`: the same for processes;
        `closed`: of how many processes the kernel did not show what; `proved`: the kinds of places in which a planted word was found;
        `cores`, `swap`: what there is; `unread`: files that could not be searched; `searched`: numbers of files and bytes; `seconds`.
    """
    started = time.monotonic()
    wanted = Needles(needles)
    proved = _prove()
    disk, unread, files, size = _disk(wanted, since)
    processes = _processes(wanted)
    hits = [*disk, *_journal(wanted, since), *processes["hits"]]
    return {
        "hits": hits[:MOST_HITS],
        "memory": processes["memory"][:MOST_HITS],
        "closed": processes["closed"],
        "proved": proved,
        "cores": sorted(str(path) for place in CORE_PLACES for path in Path(place).glob("*")),
        "swap": [line.split()[0] for line in Path("/proc/swaps").read_text(encoding="ascii").splitlines()[1:]],
        "unread": unread[:MOST_HITS],
        "searched": {"files": files, "bytes": size},
        "seconds": round(time.monotonic() - started, 1),
    }


def _prove() -> list[str]:
    """Plants a word and finds it; returns the kinds of places that could be searched. It is made anew each time and opens nothing."""
    word = "lemonstand-search-" + secrets.token_hex(16)
    wanted, began = Needles([word]), time.time() - 1
    found: list[str] = []
    handle, name = tempfile.mkstemp(dir="/var/tmp", prefix="lemonstand-search-")
    with os.fdopen(handle, "wb") as stream:
        try:
            stream.write(gzip.compress(base64.b64encode(b"x" + word.encode())))
            stream.flush()
            if _contents(Path(name), wanted):
                found.append("disk")
        finally:
            Path(name).unlink()
        stream.write(word.encode())
        stream.flush()
        if _deleted(os.getpid(), wanted):
            found.append("deleted")
    subprocess.run(["systemd-cat", "-t", "lemonstand-search"], input=word.encode(), check=False)
    for _ in range(20):
        subprocess.run(["journalctl", "--sync"], capture_output=True, check=False)
        if _journal(wanted, began):
            found.append("journal")
            break
        time.sleep(0.1)
    child = subprocess.Popen(["sleep", "30"], env={"LEMONSTAND_SEARCH": word}, stdin=subprocess.DEVNULL)
    other = subprocess.Popen(["sh", "-c", "read line", word], stdin=subprocess.PIPE)
    try:
        for _ in range(50):
            seen = _processes(wanted, only={child.pid, other.pid})
            places = {hit["place"] for hit in (*seen["hits"], *seen["memory"])}
            if places >= {"argument", "environment", "memory"}:
                break
            time.sleep(0.05)
        found += sorted(places)
    finally:
        for process in (child, other):
            process.kill()
            process.wait()
    return found


def _local_mounts() -> set[int]:
    """Devices of the file systems that are this host's."""
    devices: set[int] = set()
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, target, kind, *_ = line.split()
        if kind not in KERNELS:
            with contextlib.suppress(OSError):
                devices.add(Path(target.encode().decode("unicode_escape")).stat().st_dev)
    return devices


def _disk(wanted: Needles, since: float) -> tuple[list[dict[str, Any]], list[str], int, int]:
    hits: list[dict[str, Any]] = []
    unread: list[str] = []
    files = size = 0
    local = _local_mounts()
    for folder, folders, names in os.walk("/"):
        always = folder.startswith(ALWAYS)
        folders[:] = [name for name in folders if _device(Path(folder, name)) in local]
        for name in names:
            path = Path(folder, name)
            try:
                state = path.lstat()
            except OSError:
                continue
            link = stat.S_ISLNK(state.st_mode)
            if wanted.within(os.fsencode(path)) or (link and wanted.within(os.fsencode(path.readlink()))):
                hits.append({"place": "disk", "where": f"a name in {folder}", "forms": ["name"]})
            if not stat.S_ISREG(state.st_mode) or state.st_dev not in local or not (always or state.st_ctime >= since):
                continue
            files, size = files + 1, size + state.st_size
            try:
                found = _contents(path, wanted)
            except OSError as fault:
                if path.exists():
                    unread.append(f"{path}: {type(fault).__name__}")
                continue
            if found:
                core = any(folder.startswith(place) for place in CORE_PLACES)
                hits.append({"place": "core" if core else "disk", "where": str(path), "forms": sorted(found)})
    return hits, unread, files, size


def _device(path: Path) -> int | None:
    try:
        return path.lstat().st_dev
    except OSError:
        return None


def _contents(path: Path, wanted: Needles) -> set[str]:
    """The forms in a file, unpacked too if it is packed.

    Raises:
        OSError: it can't be read or unpacked.
    """
    with path.open("rb") as stream:
        found = wanted.in_stream(_blocks(stream))
        stream.seek(0)
        head = stream.read(6)
        stream.seek(0)
        try:
            if head[:2] == b"\x1f\x8b":
                found |= wanted.in_stream(_blocks(gzip.GzipFile(fileobj=stream)))
            elif head == b"\xfd7zXZ\0":
                with lzma.open(stream) as unpacked:
                    found |= wanted.in_stream(_blocks(unpacked))
            elif head[:4] == b"\x28\xb5\x2f\xfd" and path.suffix == ".zst":
                found |= wanted.within(subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True).stdout)
        except (EOFError, lzma.LZMAError, subprocess.CalledProcessError) as fault:
            raise OSError(str(fault)) from fault
    return found


def _blocks(stream: Any) -> Iterator[bytes]:
    while block := stream.read(BLOCK):
        yield block


def _deleted(number: int, wanted: Needles) -> list[dict[str, Any]]:
    """Files without a name that a process still holds open.

    Raises:
        PermissionError: the kernel does not show them.
    """
    hits = []
    for name in os.listdir(f"/proc/{number}/fd"):  # noqa: PTH208 - Path.iterdir asks for more than names
        link = Path(f"/proc/{number}/fd/{name}")
        try:
            target = str(link.readlink())
            if not target.endswith(" (deleted)") or not stat.S_ISREG(link.stat().st_mode):
                continue
            with link.open("rb") as stream:
                found = wanted.in_stream(_blocks(stream))
        except FileNotFoundError:
            continue
        if found:
            hits.append({"place": "deleted", "where": f"{_name(number)} {target}", "forms": sorted(found)})
    return hits


def _journal(wanted: Needles, since: float) -> list[dict[str, Any]]:
    """The journal as it reads, since its files are packed in a way of their own."""
    command = ["journalctl", "--no-pager", "--all", "-o", "export", "--since", f"@{int(since)}"]
    units: set[tuple[str, str, tuple[str, ...]]] = set()
    tail = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reader:
        for block in _blocks(reader.stdout):
            data = tail + block
            *entries, tail = data.split(b"\n\n")
            for entry in entries:
                if found := wanted.within(entry):
                    units.add((_field(entry, b"_SYSTEMD_UNIT"), _field(entry, b"SYSLOG_IDENTIFIER"), tuple(sorted(found))))
    if found := wanted.within(tail):
        units.add((_field(tail, b"_SYSTEMD_UNIT"), _field(tail, b"SYSLOG_IDENTIFIER"), tuple(sorted(found))))
    return [{"place": "journal", "where": f"{unit} {name}".strip(), "forms": list(each)} for unit, name, each in sorted(units)]


def _field(entry: bytes, name: bytes) -> str:
    for line in entry.split(b"\n"):
        if line.startswith(name + b"="):
            return line.partition(b"=")[2].decode("utf-8", "replace")
    return ""


def _processes(wanted: Needles, only: set[int] | None = None) -> dict[str, Any]:
    """What stands in processes: `hits` in arguments, environments and deleted files, `memory` apart, `closed`: how many showed what not.

    The kernel shows a process of another user to root with CAP_SYS_PTRACE only, which a container has not: those are asked as their user.
    """
    every = {int(folder.name) for folder in Path("/proc").glob("[0-9]*")}
    numbers = every & only if only is not None else every - _carriers()
    seen = _look(wanted, numbers)
    owners: dict[tuple[int, int], set[int]] = {}
    for number in {int(each) for each in seen["closed"]}:
        with contextlib.suppress(OSError):
            owners.setdefault(_owner(number), set()).add(number)
    for (user, group), theirs in owners.items():
        if user == os.geteuid():
            continue
        again = _as_user(user, group, wanted, theirs)
        if again is None:
            continue
        for number in theirs:
            seen["closed"].pop(str(number), None)
        seen["closed"] |= again["closed"]
        for kind in ("hits", "memory"):
            # Arguments are seen by everybody and were counted before.
            seen[kind] += [hit for hit in again[kind] if hit["place"] != "argument"]
    kinds = [kind for closed in seen["closed"].values() for kind in closed]
    return {"hits": seen["hits"], "memory": seen["memory"], "closed": {kind: kinds.count(kind) for kind in sorted(set(kinds))}}


def _look(wanted: Needles, numbers: set[int]) -> dict[str, Any]:
    seen: dict[str, Any] = {"hits": [], "memory": [], "closed": {}}
    for number in sorted(numbers):
        for place, look in PROCESS_PLACES.items():
            try:
                seen["memory" if place == "memory" else "hits"] += look(number, wanted)
            except PermissionError:
                seen["closed"].setdefault(str(number), []).append(place)
            except (OSError, ValueError):
                continue  # it has ended
    return seen


def _in_file(place: str, file: str) -> Callable[[int, Needles], list[dict[str, Any]]]:
    return lambda number, wanted: _note(place, number, wanted.within(Path(f"/proc/{number}/{file}").read_bytes()))


def _in_memory(number: int, wanted: Needles) -> list[dict[str, Any]]:
    return _note("memory", number, wanted.in_stream(_memory(Path(f"/proc/{number}"))))


def _note(place: str, number: int, found: set[str]) -> list[dict[str, Any]]:
    if not found:
        return []
    age = time.time() - Path(f"/proc/{number}").stat().st_mtime
    return [{"place": place, "where": _name(number), "forms": sorted(found), "process_age": round(age)}]


PROCESS_PLACES: dict[str, Callable[[int, Needles], list[dict[str, Any]]]] = {
    "argument": _in_file("argument", "cmdline"),
    "environment": _in_file("environment", "environ"),
    "deleted": _deleted,
    "memory": _in_memory,
}


def _owner(number: int) -> tuple[int, int]:
    """User and group a process runs as; the folder's owner is root where memory may not be dumped."""
    lines = Path(f"/proc/{number}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    ids = {line.split()[0]: int(line.split()[2]) for line in lines if line.startswith(("Uid:", "Gid:"))}
    return ids["Uid:"], ids["Gid:"]


def _as_user(user: int, group: int, wanted: Needles, numbers: set[int]) -> dict[str, Any] | None:
    """What a user's processes show to himself; None if nobody could ask."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
            os.write(writing, json.dumps(_look(wanted, numbers)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return dict(json.loads(said)) if said else None


def _memory(folder: Path) -> Iterator[bytes]:
    """What a process may write to: its heap, stacks and anonymous pages."""
    with (folder / "mem").open("rb", buffering=0) as stream:
        for line in (folder / "maps").read_text(encoding="utf-8", errors="replace").splitlines():
            span, rights, *rest = line.split(None, 5)
            if not rights.startswith("rw") or (len(rest) > 3 and rest[3].startswith("/dev/") and "zero" not in rest[3]):
                continue
            first, last = (int(word, 16) for word in span.split("-"))
            while first < last:
                count = min(BLOCK, last - first)
                try:
                    stream.seek(first)
                    block = stream.read(count)
                except OSError:
                    break
                if not block:
                    break
                yield block
                first += len(block)


def _name(number: int) -> str:
    with contextlib.suppress(OSError):
        return f"{Path(f'/proc/{number}/comm').read_text(encoding='utf-8').strip()}[{number}]"
    return f"[{number}]"


def _carriers() -> set[int]:
    """This process, those above it, and what they run beside it: ssh and sudo have carried the order."""
    found, number = {1}, os.getpid()
    while number > 1:
        found.add(number)
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8")
        number = int(text.rpartition(")")[2].split()[1])
    return found - {1}


def type_credentials(endpoint: Endpoint, accounts: list[Account], rounds: int, parallel: int = 1) -> dict[str, dict[str, int]]:
    """Types each account's password at both services, again and again, whatever is answered.

    Args:
        endpoint: the frontend.
        accounts: right or wrong ones.
        rounds: how often.
        parallel: rounds that go on at a time: what is refused is answered late.

    Returns:
        By service, how often each answer came: `{"imap": {"NO AUTHENTICATIONFAILED": 3}, "submission": {"535": 3}}`.
    """
    seen: dict[str, dict[str, int]] = {"imap": {}, "submission": {}}
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        for said in pool.map(lambda _: _typed(endpoint, accounts), range(rounds)):
            for service, answer in said:
                seen[service][answer] = seen[service].get(answer, 0) + 1
    return seen


def _typed(endpoint: Endpoint, accounts: list[Account]) -> list[tuple[str, str]]:
    said = []
    for account in accounts:
        session = Imap.open(endpoint)
        answer = session.plain(account)
        said.append(("imap", "OK" if answer.ok else f"{answer.status} {answer.code.split(' ')[0]}".strip()))
        session.quit()
        posting = Smtp.open(endpoint)
        said.append(("submission", str(posting.plain(account).code)))
        posting.quit()
    return said
