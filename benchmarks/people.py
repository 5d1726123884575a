"""What a change of one person costs, on a lab that is up, and what others notice of it: `python benchmarks/people.py --lab NAME`.

Somebody is added, renamed, gets an alias, is locked, unlocked and deleted. After each step mail comes in by the MX and he logs in, or is
refused. Somebody else's IMAP session idles all the while; main processes of services must stay what they are, and none may be reloaded.
With `--people N` there are N more users first, by `users sync`, and then 500 changes in one file. The lab's own users are left as they
were; those of `--people` are deleted at the end, unless `--keep` is given.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lemonstand import lab as labs
from lemonstand.measure.vantage import Vantage, open_vantage
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import ELSEWHERE, PEER_SENDER
from lemonstand.site import Site, load_site

UNITS = {
    "frontends": ["dovecot"],
    "auths": ["slapd", "ticket-issuer"],
    "stores": ["dovecot", "mailbox-nudge", "urlauth-own", "mail-standby"],
    "relays": ["postfix", "submission-limits"],
}
WORDS = ("dovecot", "postfix", "slapd", "ticket", "reload --", "refresh")
CHANGES = 500
ARRIVAL_SECONDS = 60
SESSION_SECONDS = 900


class Bench:
    """Runs commands and looks at what they did.

    Args:
        lab: its name.
        site: its model.
        vantage: the lab as clients meet it.
    """

    def __init__(self, lab: str, site: Site, vantage: Vantage) -> None:
        self.lab, self.site, self.vantage = lab, site, vantage
        self.wrong: list[str] = []

    def command(self, what: str, *words: str, given: str = "") -> None:
        """Gives a command, and prints what it took: time, and the processor's on the controller."""
        begun = time.monotonic()
        line = [sys.executable, "-m", "lemonstand", *words, "--lab", self.lab]
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as typed:
            typed.write(given.encode())
            typed.seek(0)
            process = subprocess.Popen(line, stdin=typed, stdout=said, stderr=subprocess.STDOUT)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            text = said.read().decode()
        seconds = time.monotonic() - begun
        print(f"| {what} | {seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of processor |", flush=True)
        if process.returncode:
            self.wrong.append(f"{what}: exit {process.returncode}: {text.strip()[-300:]}")

    def mail(self, address: str, account: Account | None, *, taken: bool) -> str:
        """Brings a message by the MX and looks whether it comes to an account, or is refused; what was seen in words."""
        seen = self.vantage.prober.ask(
            self.vantage.outsider,
            "foreign-mx",
            endpoint=self.vantage.exchangers(4),
            sender=PEER_SENDER,
            recipient=address,
            elsewhere=ELSEWHERE,
        )
        code = int(seen["accepted"]["code"])
        right = code == 250 if taken else code == 550
        words = f"{code}"
        if taken and code == 250 and account is not None:
            got = self.vantage.ask(
                "wait-for", endpoint=self.vantage.endpoints(4), account=account, ident=seen["ident"], within=ARRIVAL_SECONDS
            )
            right = got["seconds"] is not None
            words += f", there after {got['seconds']:.1f} s" if right else ", did not come"
        self.note(f"mail to {address}", words, right=right)
        return words

    def login(self, account: Account, *, works: bool) -> None:
        """Logs in by IMAP."""
        seen = self.vantage.ask("login-answers", endpoint=self.vantage.endpoints(4), account=account)["imap"][0]
        self.note(
            f"login of {account['user']}",
            f"{seen['status']} {'' if seen['status'] == 'OK' else seen.get('code', '')}".strip(),
            right=(seen["status"] == "OK") == works,
        )

    def note(self, what: str, words: str, *, right: bool) -> None:
        """Prints a line and remembers what is wrong."""
        print(f"| {what} | {words}{'' if right else ' WRONG'} |", flush=True)
        self.wrong += [] if right else [f"{what}: {words}"]

    def processes(self) -> dict[str, str]:
        """The main process of each service."""
        found = {}
        for group, units in UNITS.items():
            for host in self.site.group(group):
                for unit in units:
                    found[f"{host.name} {unit}"] = labs.run_on(self.lab, host.name, f"systemctl show -p MainPID --value {unit}").strip()
        return found

    def reloads(self, since: float) -> list[str]:
        """Lines of the journals that tell of a service that was reloaded or started."""
        script = f"journalctl --since=@{since:.0f} -o cat | grep -iE '^(re(loading|loaded|start)|start(ed|ing)) |reload --|refresh' || true"
        lines = []
        for group in UNITS:
            for host in self.site.group(group):
                text = labs.run_on(self.lab, host.name, script)
                ours = [line for line in text.splitlines() if any(word in line.lower() for word in WORDS)]
                lines += [f"{host.name}: {line}" for line in ours]
        return lines


def one_person(bench: Bench) -> None:
    """Changes one person in every way."""
    domain = bench.site.settings.mail_domains[0]
    mark = secrets.token_hex(3)
    name, new, alias = f"bench-{mark}@{domain}", f"renamed-{mark}@{domain}", f"alias-{mark}@{domain}"
    password = secrets.token_urlsafe(18)
    account, renamed = Account(user=name, password=password), Account(user=new, password=password)
    bench.command("add, with a password", "user", "add", name, "--password", given=password + "\n")
    bench.mail(name, account, taken=True)
    bench.login(account, works=True)
    bench.command("rename", "user", "rename", name, new)
    bench.login(renamed, works=True)
    bench.mail(new, renamed, taken=True)
    bench.mail(name, renamed, taken=True)
    bench.login(account, works=False)
    bench.command("alias", "user", "alias", new, "--add", alias)
    bench.mail(alias, renamed, taken=True)
    bench.command("lock", "user", "lock", new)
    bench.login(renamed, works=False)
    bench.mail(new, None, taken=True)
    bench.command("unlock", "user", "unlock", new)
    bench.login(renamed, works=True)
    bench.command("delete", "user", "delete", new)
    bench.login(renamed, works=False)
    for address in (new, name, alias):
        bench.mail(address, None, taken=False)
    bench.command("purge", "user", "purge", "--now", new, "--yes")


def crowd(bench: Bench, count: int, *, keep: bool) -> None:
    """Adds many, changes 500 of them, and takes them away again."""
    domains = bench.site.settings.mail_domains
    people = [f"person{number}@{domains[number % len(domains)]}" for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "people.csv")

        def listed(names: list[str], changed: int = 0) -> None:
            lines = [f"{name},{'x' if number < changed else 'a'}.{name}" for number, name in enumerate(names)]
            path.write_text("name,aliases\n" + "\n".join(lines) + "\n", encoding="utf-8")

        listed(people)
        bench.command(f"sync of {count} new users", "users", "sync", str(path))
        bench.command("sync of nothing", "users", "sync", str(path))
        one_person(bench)
        listed(people, CHANGES)
        bench.command(f"sync of {CHANGES} changes", "users", "sync", str(path))
        if not keep:
            there = subprocess.run(
                [sys.executable, "-m", "lemonstand", "user", "export", "--csv", "--lab", bench.lab],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.splitlines()
            path.write_text("\n".join(line for line in there if not line.startswith("person")) + "\n", encoding="utf-8")
            bench.command(f"sync without these {count}", "users", "sync", str(path), "--delete-missing")


def main() -> int:
    """Measures and prints; exit status 1 if something was not as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lab", default="lab")
    parser.add_argument("--people", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    os.environ.update(labs.environment(chosen.lab))
    site = load_site(labs.inventory_of(chosen.lab), labs.environment(chosen.lab))
    print("| what | measured |\n|---|---|")
    with open_vantage(site) as vantage:
        bench = Bench(chosen.lab, site, vantage)
        other: dict[str, Any] = {"endpoint": vantage.endpoints(4), "account": vantage.accounts[0], "within": SESSION_SECONDS}
        before, since = bench.processes(), time.time()
        with vantage.start("push", seconds=SESSION_SECONDS + 60, **other) as session:
            session.wait("idling")
            if chosen.people:
                crowd(bench, chosen.people, keep=chosen.keep)
            else:
                one_person(bench)
            ident = vantage.mail()
            lived = session.wait("result").values["data"]
        vantage.tidy(ident)
        bench.note("another user's session", "lived through it" if lived["arrived"] else str(lived), right=bool(lived["arrived"]))
        after = bench.processes()
        changed = sorted(name for name, process in after.items() if before[name] != process)
        bench.note("services", ", ".join(changed) or "the same main processes", right=not changed)
        reloads = bench.reloads(since)
        bench.note("reloads", "; ".join(reloads[:3]) or "none", right=not reloads)
    for line in bench.wrong:
        print(line, file=sys.stderr)
    return 1 if bench.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
