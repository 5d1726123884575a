"""Where certificates come from, and the TLS profiles: switched by one variable each, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lemonstand.paths import lab_dir

from .conftest import Command

pytestmark = pytest.mark.long

ROOTS = (
    "import ssl, urllib.request as r; c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE;"
    "print(r.urlopen('https://localhost:15000/roots/0', context=c).read().decode())"
)
SERVED = (
    "test_what_is_served or test_every_leg_is_encrypted or test_certificates_name_their_host or test_nothing_gets_through "
    "or test_every_flow_gets_through or test_holds_nothing_worth_stealing or test_keys_are_private"
)
PORTS = "test_ports_fit_the_tls_profile or test_implicit_tls or test_versions_and_suites or test_the_handset_reaches or told_where_to_go"
FINGERPRINT = ("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", "/etc/lemonstand/pki/public.crt")


@pytest.fixture
def acme(deployed: str, lemonstand: Command, on: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The lab with a certificate by ACME; the private CA's again afterwards."""
    (lab_dir(deployed) / "acme-roots.pem").write_text(on("peer", "python3", "-c", f'"{ROOTS}"'), encoding="ascii")
    monkeypatch.setenv("LEMONSTAND_LAB_CERTIFICATE", "acme")
    lemonstand("apply", "--lab", deployed)
    yield deployed
    monkeypatch.delenv("LEMONSTAND_LAB_CERTIFICATE", raising=False)
    lemonstand("apply", "--lab", deployed)


def _changes(last_run: Callable[[], dict[str, Any]]) -> list[Any]:
    return list(last_run()["changes"])


def test_acme_is_asked_serves_renews_and_goes_away(
    acme: str, lemonstand: Command, on: Callable[..., str], last_run: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = json.loads(lemonstand("certificates", "list", "--lab", acme, "--json").stdout)
    public = next(row for row in rows if (row["host"], row["certificate"]) == ("frontend", "public"))
    assert public["renewed_by"] == "the host (ACME)" and public["names"] == ["mail.lemon.test"] and "Pebble" in public["signed_by"]
    lemonstand("verify", "--lab", acme, "-k", SERVED)
    lemonstand("mail", "send", "--lab", acme, "--from", "alice@lemon.test", "--to", "bob@lemon.test", "--subject", "by ACME")

    first = on("frontend", *FINGERPRINT)
    lemonstand("apply", "--lab", acme)
    assert _changes(last_run) == [], "what the host got is left alone"
    assert on("frontend", "systemctl", "is-active", "lemonstand-acme.timer").strip() == "active"
    before = on("frontend", "systemctl", "show", "-P", "MainPID", "dovecot")
    assert "changed: /etc/lemonstand/pki/public.crt" in on("frontend", "/usr/local/lib/lemonstand/acme-certificate", "renew")
    assert on("frontend", *FINGERPRINT) != first
    assert on("frontend", "systemctl", "show", "-P", "MainPID", "dovecot") == before, "reloaded, not restarted"
    lemonstand("verify", "--lab", acme, "-k", SERVED)
    lemonstand("apply", "--lab", acme)
    assert _changes(last_run) == [], "a renewal leaves nothing to do"

    monkeypatch.delenv("LEMONSTAND_LAB_CERTIFICATE")
    lemonstand("apply", "--lab", acme)
    lemonstand("verify", "--lab", acme, "-k", SERVED)
    ours = on("frontend", *FINGERPRINT)
    on("frontend", "systemctl", "start", "lemonstand-acme")
    assert on("frontend", *FINGERPRINT) == ours, "what is no longer wanted renews nothing"


def test_renewal_on_demand_leaves_nothing_to_do(deployed: str, lemonstand: Command, last_run: Callable[[], dict[str, Any]]) -> None:
    def serials() -> dict[tuple[str, str], str]:
        rows = json.loads(lemonstand("certificates", "list", "--lab", deployed, "--json").stdout)
        return {(row["host"], row["certificate"]): row["serial"] for row in rows if row["host"] != "controller"}

    before = serials()
    lemonstand("certificates", "renew", "--lab", deployed, "--new-keys")
    after = serials()
    assert set(after) == set(before) and not [name for name in after if after[name] == before[name]]
    lemonstand("apply", "--lab", deployed)
    assert _changes(last_run) == []
    lemonstand("verify", "--lab", deployed, "-k", SERVED)


@pytest.mark.parametrize("profile", ["seed-strict", "modern"])
def test_a_tls_profile_is_one_variable(deployed: str, lemonstand: Command, monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    monkeypatch.setenv("LEMONSTAND_LAB_TLS_PROFILE", profile)
    lemonstand("apply", "--lab", deployed)
    lemonstand("verify", "--lab", deployed, "-k", f"({PORTS}) and not told_where_to_go")
    monkeypatch.delenv("LEMONSTAND_LAB_TLS_PROFILE")
    lemonstand("apply", "--lab", deployed)
    lemonstand("verify", "--lab", deployed, "-k", PORTS)


def test_no_session_is_lost_by_renewal_and_apply(deployed: str, lemonstand: Command) -> None:
    lemonstand("verify", "--lab", deployed, "--disruptive", "-k", "test_no_sleeping_session_is_lost_by_renewal_or_apply", timeout=1800)
