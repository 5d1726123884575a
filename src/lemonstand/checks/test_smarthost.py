"""A smarthost, where a site has one: mail to others leaves through it alone, logged in, and only if it is who it should be."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from lemonstand.checks.conftest import FactsOf, HostFactory, Measure
from lemonstand.checks.test_delivery import PEER_USER
from lemonstand.checks.undone import undone
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid, named, not_measurable
from lemonstand.site import Site
from lemonstand.site.model import SmarthostService

PASSWORD = "/etc/postfix/smarthost"
SENT_SECONDS = 60
"""How long a message may take through a relay's queue."""
PKI = "/etc/lemonstand/pki"
FALSE = (
    "cp -p /etc/postfix/master.cf /run/master.cf.true && "
    f"postconf -P submission/inet/smtpd_tls_chain_files={PKI}/acme.key,{PKI}/acme.crt && postfix reload"
)
TRUE = "cp -p /run/master.cf.true /etc/postfix/master.cf && rm /run/master.cf.true && postfix reload"
"""How the lab's peer shows the certificate of another name, by a CA that is believed, and its own again."""


def _smarthost(site: Site) -> SmarthostService:
    return named(site.settings.services.smarthost, "relays send by themselves: no smarthost is named")


def hops(service: SmarthostService) -> list[str]:
    """The smarthost's addresses as Postfix names next hops."""
    return [f"[{'ipv6:' if each.version == 6 else ''}{each}]:{service.port}" for each in service.addresses]


@pytest.mark.answer("configuration")
@pytest.mark.control("MTA-09")
def test_mail_to_others_has_one_way(site: Site, facts_of: FactsOf, host: HostFactory, relay: str, measure: Measure) -> None:
    """Postfix sends what is not for the site to the smarthost, always over verified TLS and logged in; the password is root's alone."""
    service = _smarthost(site)
    postfix = facts_of(relay).postfix
    measure("next hops", postfix["relayhost"])
    wanted = {
        "relayhost": ", ".join(hops(service)),
        "smtp_tls_security_level": "secure",
        "smtp_sasl_auth_enable": "yes",
        "smtp_sasl_password_maps": f"texthash:{PASSWORD}",
        "smtp_sasl_security_options": "noanonymous",
        "smtp_tls_wrappermode": "yes" if service.port == 465 else "no",
    }
    other = {name: postfix[name] for name, value in wanted.items() if postfix[name] != value}
    expect(not other, "mail to others may leave by another way, or to somebody else", seen=other, expected=wanted)
    policy = postfix["smtp_tls_policy_maps"]
    loose = [hop for hop in hops(service) if f"{hop} = secure match={service.name} " not in policy]
    expect(not loose, "another certificate than the smarthost's is taken", seen=policy, expected=f"secure match={service.name} for each")
    mode = host(relay).check_output("stat -c '%%a %%U' %s", PASSWORD)
    expect(mode == "600 root", "others can read the password for the smarthost", seen=mode, expected="600 root")


@pytest.mark.disruptive
@pytest.mark.answer("live")
@pytest.mark.control("MTA-09")
def test_mail_waits_for_the_true_smarthost(site: Site, vantage: Vantage, host: HostFactory, measure: Measure) -> None:
    """While the smarthost shows another name's certificate a message waits; once it shows its own the message leaves, logged in there."""
    service = _smarthost(site)
    peer = site.hosts.get(vantage.outsider)
    if peer is None or not set(service.addresses) & set(peer.interfaces["internet"].addresses):
        not_measurable("the smarthost is no host of a lab: nobody can have it show another certificate")
    relays = [each.name for each in site.group("relays")]
    with undone(host, [peer.name], FALSE, TRUE):
        sent = vantage.ask("deliver", endpoint=vantage.endpoints(), account=vantage.accounts[0], recipient=PEER_USER)
        if sent["code"] != 250:
            invalid(f"no message could be sent: {sent}")
        waits = _told(host, relays, sent["ident"], lambda line: "status=" in line and "relay=127." not in line)
    for relay in relays:
        host(relay).run("postfix flush")
    leaves = _told(host, relays, sent["ident"], lambda line: "status=sent" in line and "relay=127." not in line)
    logins = host(peer.name).run("journalctl -o cat -u 'postfix*' --since -5min --grep sasl_username=").stdout
    measure("while it is somebody else", waits)
    measure("then", leaves)
    expect(
        "status=deferred" in waits and "not verified" in waits,
        "mail is handed to a false smarthost, or comes back",
        seen=waits,
        expected="status=deferred (Server certificate not verified)",
    )
    left = any(f"[{address}]:{service.port}" in leaves for address in service.addresses)
    expect(left, "mail to others does not leave by the smarthost", seen=leaves, expected=f"status=sent, relay at port {service.port}")
    expect(f"sasl_username={service.user}" in logins, "relays do not log in", seen=logins[-200:], expected=f"sasl_username={service.user}")


def _told(host: HostFactory, relays: list[str], ident: str, wanted: Callable[[str], bool]) -> str:
    """The first line of relays' journals about a message that is wanted; empty if none came in time."""
    until = time.monotonic() + SENT_SECONDS
    while time.monotonic() < until:
        for relay in relays:
            lines: list[str] = host(relay).run("journalctl -o cat -u 'postfix*' --since -5min").stdout.splitlines()
            queued = {found[1] for line in lines if (found := re.search(rf"(\w+): message-id=<{re.escape(ident.strip('<>'))}>", line))}
            for line in lines:
                if wanted(line) and line.partition(":")[0] in queued:
                    return line
        time.sleep(1)
    return ""
