"""Credentials on their way: whose address is written down, what is kept, and what an operator's lock does."""

from __future__ import annotations

import ipaddress
import json
import secrets
import time
import unicodedata
from typing import Any

import pytest

from lemonstand.admin import Hosts, generate_password
from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import FactsOf, HostFactory, Measure
from lemonstand.checks.undone import locked_out
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import ARRIVAL_SECONDS, Endpoints, families_of
from lemonstand.remote.prober import Prober, results
from lemonstand.site import Site

LINE_SECONDS = 10
CLOCK_SECONDS = 60
"""How much earlier than the controller's clock says journals are read from: a host's clock may be another one."""
END_SECONDS = 10
"""How soon a locked user's sessions have to be gone."""
CANARY_ROUNDS, CANARY_PARALLEL = 125, 8
"""By each IP version; each round types two passwords at two services: a thousand in all."""
FORGED = {4: "198.51.100.77", 6: "2001:db8:dead::77"}
SILENT = {"auth_debug": "no", "auth_debug_passwords": "no", "auth_verbose_passwords": "no", "log_debug": "", "verbose_ssl": "no"}


@pytest.mark.answer("configuration")
@pytest.mark.supports("LEM-8-08")
@pytest.mark.parametrize("group", ["frontends", "stores"])
def test_dovecot_logs_no_secret(site: Site, facts_of: FactsOf, group: str, measure: Measure) -> None:
    """No debug log, no passwords of failed logins in the log, no traffic written to files."""
    for each in site.group(group):
        settings = facts_of(each.name).dovecot
        known = {name: settings.values[name] for name in SILENT if name in settings.values}
        measure(f"{each.name}: settings read", len(known))
        loud = {name: value for name, value in known.items() if value != SILENT[name]}
        expect(bool(known) and not loud, f"{each.name} logs what is secret", seen=loud, expected=SILENT)
        raw = {key: value for key, value in settings.values.items() if key.endswith("rawlog_dir") and value}
        expect(not raw, f"{each.name} writes sessions to files", seen=raw, expected="no rawlog")


@pytest.mark.answer("configuration")
@pytest.mark.supports("LEM-8-08", "LEM-8-12")
def test_no_crash_writes_memory_to_disk(site: Site, facts_of: FactsOf, measure: Measure) -> None:
    """Services through which passwords and tickets pass may leave no core file."""
    units = {"frontends": ["dovecot"], "stores": ["dovecot"], "auths": ["slapd", "ticket-issuer"]}
    limits = {
        f"{host.name}: {unit}": facts_of(host.name).unit(unit)["LimitCORE"]
        for group, names in units.items()
        for host in site.group(group)
        for unit in names
    }
    measure("services", len(limits))
    loose = {name: value for name, value in limits.items() if value != "0"}
    expect(bool(limits) and not loose, "a crash may write memory to a disk", seen=loose, expected="LimitCORE 0")


@measurement()
def refusal_hashes(vantage: Vantage) -> dict[str, dict[str, list[str]]]:
    """For which entries each credential host makes a hash when it refuses a login, by host and kind of refusal."""
    known = vantage.accounts[0]["user"]
    return {host.name: vantage.prober.ask(host.name, "refusal-hashes", known=known) for host in vantage.site.group("auths")}


@pytest.mark.answer("live")
@pytest.mark.control("LEM-8-08")
def test_every_refusal_costs_one_hash(refusal_hashes: dict[str, dict[str, list[str]]], measure: Measure) -> None:
    """For a wrong password the directory hashes it once; for a name nobody has it hashes it for the entry that is there for that alone."""
    for host, asked in refusal_hashes.items():
        kinds = {case: ["nobody" if name.startswith("cn=nobody,") else "the name" for name in names] for case, names in asked.items()}
        measure(f"{host}: tried for a wrong password", ", ".join(kinds["wrong"]))
        measure(f"{host}: tried for an unknown name", ", ".join(kinds["unknown"]))
        expect(
            kinds == {"wrong": ["the name"], "odd": ["the name"], "unknown": ["the name", "nobody"]},
            "what a refusal costs tells whether a name exists",
            seen=kinds,
            expected="one hash: for the name where it exists, for cn=nobody where it does not",
        )


@measurement()
def spelt(vantage: Vantage, version: int) -> dict[str, Any]:
    """What each probe user's password is answered, composed and decomposed (Unicode Standard Annex 15); those that have two spellings."""
    found = {}
    for account in vantage.accounts:
        spellings = {form: unicodedata.normalize(form, account["password"]) for form in ("NFC", "NFD")}
        if len(set(spellings.values())) == 2:
            for form, typed in spellings.items():
                name = f"{account['user']} {form}"
                found[name] = vantage.ask(
                    "login-answers", endpoint=vantage.endpoints(version), account=Account(user=account["user"], password=typed)
                )
    return found


@pytest.mark.answer("live")
@pytest.mark.control("LEM-8-08")
def test_a_password_opens_however_it_is_spelt(spelt: dict[str, Any], family: int, measure: Measure) -> None:
    """`ü` as one character or as two, as keyboards and systems differ, opens IMAP and submission alike (RFC 8265 section 4.2)."""
    if not spelt:
        not_measurable("no probe user's password has a letter with two spellings; give one of them an accent")
    measure("spellings typed", len(spelt))
    for name, said in spelt.items():
        seen = {"imap": said["imap"][0]["status"], "submission": said["submission"][0]["status"]}
        expect(seen == {"imap": "OK", "submission": "235"}, f"the right password is refused: {name}", seen=seen, expected="OK and 235")


ODD_PASSWORDS = {
    "of two directions": "\u05e1\u05d9\u05e1\u05de\u05d4-mail-2026-abc",
    "with an invisible character": "correct \u2764\ufe0f horse battery",
    "with a control character": "correct\thorse\x01battery",
    "of unassigned characters": "correct \U000e0fff horse battery",
}


@measurement()
def odd(vantage: Vantage, version: int) -> dict[str, Any]:
    """What passwords are answered that nobody can have, or that a library on the way might stumble over; under names nobody has."""
    found = {}
    for case, typed in ODD_PASSWORDS.items():
        nobody = Account(user=f"nobody-{secrets.token_hex(6)}@{vantage.site.settings.mail_domains[0]}", password=typed)
        found[case] = vantage.ask("login-answers", endpoint=vantage.endpoints(version), account=nobody)
    return found


@pytest.mark.answer("live")
@pytest.mark.control("LEM-8-08")
def test_an_odd_password_is_refused_as_any_other(odd: dict[str, Any], family: int, measure: Measure) -> None:
    """What can't be anybody's password is refused for good: "try later" would make clients ask for ever, and count for nothing."""
    measure("passwords tried", len(odd))
    for case, said in odd.items():
        imap, submission = said["imap"][0], said["submission"][0]
        seen = {"imap": imap["code"], "submission": submission["status"], "usable": imap["usable"] and submission["usable"]}
        expect(
            seen == {"imap": "AUTHENTICATIONFAILED", "submission": "535", "usable": True},
            f"a password {case} is not refused as others are",
            seen=seen,
            expected="AUTHENTICATIONFAILED, 535, and the connection goes on",
        )


@measurement()
def misplaced(vantage: Vantage) -> tuple[float, dict[str, str]]:
    """When passwords were typed where names belong, and which, by kind: of a name's form, of its characters alone, and of others."""
    began = time.time()
    made = {kind: f"canary{secrets.token_hex(8)}" for kind in ("a name's form", "a name's characters", "other characters")}
    made["a name's form"] += f"@{secrets.token_hex(4)}.fun"
    made["other characters"] += "!%7D"
    for typed in made.values():
        vantage.ask("login-answers", endpoint=vantage.endpoints(), account=Account(user=typed, password=generate_password()))
    return began, made


@pytest.mark.answer("live")
@pytest.mark.control("LEM-8-08")
def test_a_password_in_the_field_of_the_name_is_not_logged(
    misplaced: tuple[float, dict[str, str]], host: HostFactory, site: Site, measure: Measure
) -> None:
    """What nobody has as a name stands in no journal of frontends and issuers, and the issuer's has the login all the same."""
    began, made = misplaced
    name = made["a name's form"]
    lines = _lines(host, site, name, 1, began)
    measure("lines with a digest in its place", len(lines))
    if not lines:
        invalid(f"no issuer wrote anything about a refused login of {name}")
    found = []
    for each in (*site.group("frontends"), *site.group("auths")):
        for kind, typed in made.items():
            # Words of our own making, up to what a shell or a pattern would read in another way.
            word = typed.partition("@")[0].partition("!")[0]
            units = "-u dovecot -u slapd -u ticket-issuer -u ticket-peers"
            text = host(each.name).run(f"journalctl {units} -o cat --since @{began - CLOCK_SECONDS:.0f} --grep {word}").stdout
            found += [f"{each.name}, of {kind}: {line[:120]}" for line in text.splitlines() if word in line]
    expect(not found, "a password typed as a name is logged", seen=found[:4], expected="nowhere")


@measurement()
def forged(vantage: Vantage, version: int) -> tuple[float, str, Any]:
    """When there were two refused logins of a made-up name, the name, and what they were told."""
    began = time.time()
    nobody = Account(user=f"nobody-{secrets.token_hex(6)}@{vantage.site.settings.mail_domains[0]}", password=generate_password())
    said = vantage.ask("forged-address", endpoint=vantage.endpoints(version), account=nobody, forged=FORGED[version])
    return began, nobody["user"], said


@pytest.mark.answer("live")
@pytest.mark.control("LEM-8-24")
@pytest.mark.supports("LEM-8-08")
def test_the_issuer_hears_the_clients_own_address(
    forged: tuple[float, str, Any], host: HostFactory, site: Site, family: int, measure: Measure
) -> None:
    """A refused login is written down with the handset's address, also where the handset names another as a proxy would."""
    began, name, said = forged
    lines = _lines(host, site, name, 2, began)
    if len(lines) < 2:
        invalid(f"issuers have {len(lines)} lines about two refused logins: {said}")
    seen = {line["client"] for line in lines}
    measure("written down", ", ".join(sorted(seen)))
    expect(FORGED[family] not in seen, "a forged address is believed", seen=seen, expected="the handset's own")
    inner = {
        str(address) for each in site.hosts.values() if each.role_groups for leg in each.interfaces.values() for address in leg.addresses
    }
    outside = [address for address in seen if address not in inner and ipaddress.ip_address(address).version == family]
    expect(
        len(outside) == len(seen) == 1, "the issuer does not hear the client's address", seen=seen, expected=f"one of IPv{family}, not ours"
    )


def _lines(host: HostFactory, site: Site, name: str, wanted: int, began: float) -> list[dict[str, str]]:
    """What all issuers together wrote about a name nobody has, since it was typed: minutes ago, where many hosts are asked."""
    until = time.monotonic() + LINE_SECONDS
    while True:
        found = []
        for each in site.group("auths"):
            # The name is of our own making: no shell sees anything else. The log has a digest in its place.
            shown = host(each.name).run(f"echo {name} | python3 /usr/local/lib/lemonstand/ticket_issuer.py").stdout.strip()
            since = f"--since @{began - CLOCK_SECONDS:.0f}"
            text = host(each.name).run(f"journalctl -u ticket-issuer -o cat {since} --grep user={shown}").stdout
            found += [dict(word.partition("=")[::2] for word in line.split()) for line in text.splitlines() if line.startswith("decision=")]
        if len(found) >= wanted or time.monotonic() > until:
            return found
        time.sleep(0.5)


@pytest.mark.answer("live")
@pytest.mark.control("LEM-8-24")
def test_users_send_only_so_much(
    prober: Prober, host: HostFactory, site: Site, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """Each message counts for its user on the relay it leaves by; a login at a relay's limit is told to try later, with an alarm.

    So is one that writes to more recipients than it used to, at a number of its own.
    """
    relays = [each.name for each in site.group("relays")]
    before = {relay: prober.ask(relay, "sent-count", login=accounts[0]["user"]) for relay in relays}
    sent = vantage.ask("deliver", endpoint=endpoints(), account=accounts[0], recipient=accounts[1]["user"])
    if sent["code"] != 250:
        invalid(f"no message could be sent: {sent}")
    vantage.ask("wait-for", endpoint=endpoints(), account=accounts[1], ident=sent["ident"], within=ARRIVAL_SECONDS)
    after = {relay: prober.ask(relay, "sent-count", login=accounts[0]["user"]) for relay in relays}
    counted = [relay for relay in relays if after[relay]["at"] > before[relay]["at"]]
    seen = {relay: each["at"] for relay, each in after.items()}
    measure("counted on", ", ".join(counted))
    expect(bool(counted), "a message is not counted for its user", seen=seen, expected="counted when it was sent, on the relay it left by")
    for relay in relays:
        limits = after[relay]
        measure(f"{relay}: limits", f"{limits['messages_per_hour']} messages, {limits['recipients_per_hour']} recipients an hour")
        usual, most = limits["usual_recipients_per_hour"], 2 * limits["messages_per_hour"]
        kinds = [("messages", most, limits["messages_per_hour"])]
        if 0 < usual < limits["messages_per_hour"]:
            kinds.append(("unusual", 0, usual))
        for kind, used_to, wanted in kinds:
            name = f"nobody-{secrets.token_hex(6)}@{site.settings.mail_domains[0]}"
            asked = prober.ask(relay, "sent-out", login=name, most=most, used_to=used_to)
            measure(f"{relay}: before the end ({kind})", asked["taken"])
            expect(
                asked["answer"].startswith("450 4.7.1 ") and asked["taken"] <= wanted * (1 + asked["seconds"] / 3600) + 1,
                f"a user may send without end by {relay} ({kind})",
                seen=asked,
                expected=f"450 4.7.1 after {wanted}",
            )
            alarms = host(relay).run(f"journalctl -u submission-limits -p warning -o cat --since -2min --grep user={name}").stdout
            told = f"alarm=sending limit={kind} "
            expect(told in alarms, f"nobody is told of it at {relay}", seen=alarms[-200:], expected=f"{told}in a line of priority warning")


def _user(site: Site, accounts: list[Account]) -> Account:
    if not site.group("stores") or len(accounts) < 2:
        not_measurable("it takes a second probe user")
    return accounts[1]


@pytest.mark.disruptive
@pytest.mark.answer("live")
@pytest.mark.control("LEM-8-12")
@pytest.mark.supports("LEM-8-08")
def test_a_locked_user_is_out_at_once(
    site: Site, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """The operator's lock ends an idle session within seconds and refuses the right password; unlocking brings it back."""
    user = _user(site, accounts)
    with Hosts(site.inventory) as hosts:
        with vantage.start("push", endpoint=endpoints(), account=user, within=40) as session:
            session.wait("idling")
            began = time.monotonic()
            with locked_out(site, hosts, user["user"]):
                ended = session.wait("result")
                refused = vantage.ask("login-answers", endpoint=endpoints(), account=user)
        again = vantage.ask("login-answers", endpoint=endpoints(), account=user)
    measure("session gone after", round(ended.at - began, 1), "s")
    expect(
        not ended.values["data"]["answered"] and ended.at - began < END_SECONDS,
        "a locked user's session lives on",
        seen=ended.values["data"],
        expected=f"gone within {END_SECONDS} s",
    )
    expect(
        refused["imap"][0]["code"] == "AUTHENTICATIONFAILED", "a locked user gets in", seen=refused["imap"], expected="AUTHENTICATIONFAILED"
    )
    expect(refused["submission"][0]["status"] == "535", "a locked user may send", seen=refused["submission"], expected="535")
    expect(again["imap"][0]["status"] == "OK", "an unlocked user stays out", seen=again["imap"], expected="OK")


@pytest.mark.disruptive
@pytest.mark.answer("live")
@pytest.mark.control("LEM-8-08")
def test_typed_passwords_are_found_nowhere(
    sessions_held: None,
    prober: Prober,
    site: Site,
    vantage: Vantage,
    *,
    endpoints: Endpoints,
    nodes: list[str],
    accounts: list[Account],
    measure: Measure,
) -> None:
    """Passwords typed at both services, right and wrong ones, stand in no file, journal, argument, environment or core file of any host."""
    began = time.time() - 5
    wrong = Account(user=f"nobody-{secrets.token_hex(6)}@{site.settings.mail_domains[0]}", password=generate_password())
    orders: dict[str, Any] = {"accounts": [wrong, accounts[0]], "rounds": CANARY_ROUNDS, "parallel": CANARY_PARALLEL}
    typing = {family: vantage.start("canary-type", seconds=300, endpoint=endpoints(family), **orders) for family in families_of(site)}
    for family, typed in results(typing).items():
        measure(f"answers by IPv{family}", json.dumps(typed))
        if not typed["imap"].get("OK") or not typed["submission"].get("235"):
            invalid(f"nobody got in: {typed}")
    needles = [wrong["password"], accounts[0]["password"]]
    searching = {name: prober.start(name, "canary-search", seconds=300, needles=needles, since=began) for name in nodes}
    found = results(searching)
    for name, answer in found.items():
        lacking = {"disk", "deleted", "journal", "argument", "environment", "memory"} - set(answer["proved"])
        if lacking:
            invalid(f"{name}: a planted word was not found in {sorted(lacking)}")
        # Reported, not judged: a process that handles passwords has them while it does.
        if answer["memory"]:
            measure(f"{name}: memory", ", ".join(f"{hit['where']} for {hit['process_age']} s at most" for hit in answer["memory"][:5]))
        if answer["closed"]:
            measure(f"{name}: not shown by the kernel", ", ".join(f"{kind} of {count}" for kind, count in answer["closed"].items()))
    measure("files searched", sum(answer["searched"]["files"] for answer in found.values()))
    hits = [f"{name}: {hit['place']} {hit['where']}" for name, answer in found.items() for hit in answer["hits"]]
    expect(not hits, "a typed password was kept", seen=hits[:5], expected="nowhere")
