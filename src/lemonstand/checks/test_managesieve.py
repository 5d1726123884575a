"""ManageSieve: where a site offers it, clients reach it and log in as they do for mail; where it does not, nothing is there."""

from __future__ import annotations

from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.checks.live import KNOCK_SECONDS
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect
from lemonstand.site import Site

PORT, OPEN_PORT = 4190, 143
Session = dict[str, Any]


@measurement()
def scripts(vantage: Vantage, version: int) -> Session | None:
    """What a client met on 4190; None where the site does not offer it."""
    if not vantage.site.settings.managesieve:
        return None
    return dict(vantage.ask("sieve-session", endpoint=vantage.endpoints(version), account=vantage.accounts[0]))


@measurement()
def dialled(vantage: Vantage, version: int) -> dict[int, str]:
    """What came of dialling 4190, and a port that is open on every site."""
    address = vantage.endpoints(version)["address"]
    times = {PORT: KNOCK_SECONDS, OPEN_PORT: 5}
    return {port: vantage.ask("reach", targets=[(address, port)], timeout=seconds)[0][2] for port, seconds in times.items()}


@pytest.mark.answer("live")
@pytest.mark.control("LEM-3-09")
def test_what_is_offered_is_reachable(dialled: dict[int, str], site: Site, family: int, measure: Measure) -> None:
    """4190 answers a client outside if, and only if, the site offers ManageSieve."""
    offered, what = site.settings.managesieve, dialled[PORT]
    measure("lemonstand_managesieve", offered)
    measure("4190", what)
    expect((what == "open") is offered, "4190 is not as the site says", seen=what, expected="open" if offered else "silence")
    expect(dialled[OPEN_PORT] == "open", "the way to the frontend is shut as a whole", seen=dialled[OPEN_PORT], expected="open")


@pytest.mark.answer("live")
@pytest.mark.control("LEM-3-09")
@pytest.mark.supports("LEM-8-11", "LEM-8-15")
def test_scripts_are_managed_with_the_password_of_mail(scripts: Session | None, site: Site, family: int, measure: Measure) -> None:
    """STARTTLS first, no password before it, the wrong one refused, the right one taken, a script stored, listed and removed."""
    measure("offered", scripts is not None)
    if scripts is None:
        return  # test_what_is_offered_is_reachable holds that nothing answers
    measure("TLS", f"{scripts['tls']['version']} {scripts['tls']['cipher']}")
    expect(
        "STARTTLS" in scripts["before_tls"] and not scripts["before_tls"].get("SASL"),
        "a password is asked for before TLS",
        seen=scripts["before_tls"],
        expected="STARTTLS, and no SASL mechanism",
    )
    expect(scripts["early"][0] == "NO", "a password is taken before TLS", seen=scripts["early"], expected="NO")
    expect(scripts["starttls"][0] == "OK", "STARTTLS fails", seen=scripts["starttls"], expected="OK")
    expect(
        site.settings.public_name in scripts["tls"]["names"],
        "the certificate is somebody else's",
        seen=scripts["tls"]["names"],
        expected=site.settings.public_name,
    )
    expect(scripts["wrong"][0] == "NO", "a wrong password is taken", seen=scripts["wrong"], expected="NO")
    for step in ("right", "put", "listed", "deleted"):
        expect(scripts[step][0] == "OK", f"ManageSieve fails at '{step}'", seen=scripts[step], expected="OK")
    expect(scripts["script"] in scripts["scripts"], "a stored script is not listed", seen=scripts["scripts"], expected=scripts["script"])
    expect("SIEVE" in scripts["after_tls"], "no extension is announced", seen=sorted(scripts["after_tls"]), expected="SIEVE")


@pytest.mark.answer("configuration")
@pytest.mark.supports("LEM-3-09")
def test_managesieve_listens_where_it_is_offered(
    site: Site, facts_of: FactsOf, frontends: list[str], stores: list[str], measure: Measure
) -> None:
    """On frontends and stores: both IP versions if it is offered, no socket if it is not."""
    offered = site.settings.managesieve
    measure("lemonstand_managesieve", offered)
    wrong = []
    for name in (*frontends, *stores):
        versions = {version for version in (4, 6) for each in facts_of(name).sockets if each.port == PORT and each.hears(version)}
        if versions != ({4, 6} if offered else set()):
            wrong.append(f"{name}: IPv{' and IPv'.join(map(str, sorted(versions))) or ' of no version'}")
    expect(not wrong, "4190 is not as the site says", seen=wrong, expected="both IP versions" if offered else "no socket")
