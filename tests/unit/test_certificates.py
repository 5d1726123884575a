"""The programs that sign, install and adopt certificates."""

from __future__ import annotations

import datetime
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lemonstand.checks.false_certificates import counterfeit
from lemonstand.remote.certificates import Certificate
from lemonstand.site.shipped import filter_plugin

ROLES = Path(__file__).resolve().parents[2] / "roles"
NAMES = ["mail.lemon.test"]


def _load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROLES / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sign = _load("certificates/files/sign_certificates.py")
on_host = _load("certificates/files/certificate_host.py")
acme = _load("acme_client/files/acme_certificate.py")


def _key_and_request(folder: Path, name: str) -> tuple[str, str]:
    key = folder / f"{name}.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(key)], check=True)
    made = subprocess.run(["openssl", "req", "-new", "-key", str(key), "-subj", "/CN=x"], check=True, capture_output=True, text=True)
    return key.read_text(encoding="ascii"), made.stdout


def _order(folder: Path, csr: str, certificate: str | None, **others: Any) -> dict[str, Any]:
    return {
        "check": False,
        "host": "frontend",
        "directory": str(folder / "pki"),
        "requests": [{"name": "public", "ca": "public", "usage": "server", "names": NAMES}],
        "prepared": {"public": {"csr": csr, "certificate": certificate}},
        "trusted_cas": [],
        "ca_label": "lemonstand",
        "ca_name_constraints": {},
        "ca_days": 3650,
        "days": 90,
        "renew_days": 30,
        "renew_now": False,
        "renewed_on_host": [],
        **others,
    }


def _signed(folder: Path, csr: str, certificate: str | None = None, **others: Any) -> tuple[str, list[str]]:
    done = sign.work(_order(folder, csr, certificate, **others))
    return done["certificates"]["public"], done["changed"]


def test_a_good_certificate_is_kept_and_renewed_on_demand(tmp_path: Path) -> None:
    _, csr = _key_and_request(tmp_path, "a")
    first, _ = _signed(tmp_path, csr)
    again, changed = _signed(tmp_path, csr, first)
    assert again == first and changed == []
    new, changed = _signed(tmp_path, csr, first, renew_now=True)
    assert new != first and changed == ["certificate public: it was asked for"]
    short, _ = _signed(tmp_path, csr, None, days=10)
    new, changed = _signed(tmp_path, csr, short)
    assert new != short and "it ends" in changed[0]


def test_a_new_key_has_its_certificate_signed(tmp_path: Path) -> None:
    _, first_csr = _key_and_request(tmp_path, "a")
    first, _ = _signed(tmp_path, first_csr)
    _, second_csr = _key_and_request(tmp_path, "b")
    new, changed = _signed(tmp_path, second_csr, first)
    assert changed == ["certificate public: it is for another key"]
    assert Certificate("public", new).public_key != Certificate("public", first).public_key


def test_what_the_host_gets_elsewhere_is_left_alone(tmp_path: Path) -> None:
    _, csr = _key_and_request(tmp_path, "a")
    _signed(tmp_path, csr)
    (tmp_path / "other").mkdir()
    elsewhere, _ = _signed(tmp_path / "other", csr)
    kept, changed = _signed(tmp_path, csr, elsewhere, renewed_on_host=["public"], renew_now=True)
    assert kept == elsewhere and changed == []
    back, changed = _signed(tmp_path, csr, elsewhere)
    assert back != elsewhere and changed == ["certificate public: it is not of this CA"]


def test_until_it_comes_the_site_signs(tmp_path: Path) -> None:
    _, csr = _key_and_request(tmp_path, "a")
    first, changed = _signed(tmp_path, csr, None, renewed_on_host=["public"])
    assert Certificate("public", first).names == NAMES
    assert "certificate public: there is none" in changed


def test_a_next_key_takes_over_with_its_certificate_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_host, "PKI", tmp_path)
    old, _ = _key_and_request(tmp_path, "old")
    new, csr = _key_and_request(tmp_path, "new")
    key, waiting = tmp_path / "public.key", tmp_path / "public.key.next"
    key.write_text(old, encoding="ascii")
    waiting.write_text(new, encoding="ascii")
    certificate, _ = _signed(tmp_path, csr)
    on_host.take_next_key("public", certificate)
    assert key.read_text(encoding="ascii") == new and not waiting.exists()
    waiting.write_text(old, encoding="ascii")
    on_host.take_next_key("public", certificate)
    assert key.read_text(encoding="ascii") == new and not waiting.exists(), "a key nobody signed for is thrown away"


def test_a_counterfeit_differs_in_name_or_signer_alone(tmp_path: Path) -> None:
    _, csr = _key_and_request(tmp_path, "a")
    true = Certificate("public", _signed(tmp_path, csr)[0])
    false = Certificate("public", counterfeit(tmp_path / "pki" / "public", _signed(tmp_path, csr)[0], ["impostor.lemon.test"]))
    ca = Certificate("public", (tmp_path / "pki" / "public" / "ca.crt").read_text(encoding="ascii"))
    assert false.signed_by(ca) and false.public_key == true.public_key and false.uses == true.uses
    assert false.names == ["impostor.lemon.test"]


@pytest.fixture
def live(tmp_path: Path) -> dict[str, Any]:
    """Settings of a client that has got a certificate."""
    key, csr = _key_and_request(tmp_path, "a")
    folder = tmp_path / "live"
    folder.mkdir()
    (folder / "fullchain.pem").write_text(_signed(tmp_path, csr)[0], encoding="ascii")
    (folder / "privkey.pem").write_text(key, encoding="ascii")
    return {
        "live": str(folder), "names": NAMES, "units": [], "certificate": str(tmp_path / "public.crt"), "key": str(tmp_path / "public.key"),
    }  # fmt: skip


def test_the_clients_certificate_is_taken_over(live: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    acme.adopt(live)
    assert Path(live["certificate"]).read_text(encoding="ascii") == Path(live["live"], "fullchain.pem").read_text(encoding="ascii")
    assert Path(live["key"]).stat().st_mode & 0o777 == 0o600
    assert "changed: " in capsys.readouterr().out
    acme.adopt(live)
    assert capsys.readouterr().out == ""


def test_every_service_that_uses_it_is_told_though_one_does_not_listen(
    live: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "converge-service"
    tool.write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/told\n[ "$1" != dovecot.service ]\n', encoding="ascii")
    tool.chmod(0o755)
    monkeypatch.setattr(acme, "CONVERGE", str(tool))
    with pytest.raises(acme.Fault, match="converge-service dovecot"):
        acme.adopt({**live, "units": ["dovecot.service", "nginx.service"]})
    assert (tmp_path / "told").read_text(encoding="ascii").split() == ["dovecot.service", "nginx.service"]
    assert Path(live["certificate"]).exists()


def test_what_was_not_asked_for_is_not_taken_over(live: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(acme.Fault, match=r"is not for other\.test"):
        acme.adopt({**live, "names": ["other.test"]})
    with pytest.raises(acme.Fault, match="left no certificate"):
        acme.adopt({**live, "live": str(tmp_path / "nowhere")})
    foreign, _ = _key_and_request(tmp_path, "foreign")
    Path(live["live"], "privkey.pem").write_text(foreign, encoding="ascii")
    with pytest.raises(acme.Fault, match="does not belong to its certificate"):
        acme.adopt(live)
    assert not Path(live["certificate"]).exists()


def test_an_ended_certificate_is_not_taken_over(live: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, csr = _key_and_request(tmp_path, "old")
    long_ago = datetime.datetime.now(datetime.UTC).replace(microsecond=0) - datetime.timedelta(days=100)
    monkeypatch.setattr(sign, "now", lambda: long_ago)
    (tmp_path / "past").mkdir()
    Path(live["live"], "fullchain.pem").write_text(_signed(tmp_path / "past", csr)[0], encoding="ascii")
    Path(live["live"], "privkey.pem").write_text(key, encoding="ascii")
    with pytest.raises(acme.Fault, match="openssl x509"):
        acme.adopt(live)


def test_what_is_due_is_signed_and_nothing_else_is_touched(tmp_path: Path) -> None:
    _, csr = _key_and_request(tmp_path, "a")
    fresh, _ = _signed(tmp_path, csr)
    ending, _ = _signed(tmp_path, csr, days=20)

    def due(certificate: str | None, **others: Any) -> dict[str, Any]:
        found: dict[str, Any] = sign.renew_due(_order(tmp_path, csr, certificate, **others))
        return found

    done = due(ending)
    new = done["certificates"]["public"]
    assert "it ends" in done["changed"][0] and Certificate("", new).days_left_now() > 89
    assert done["cas"] == {} and done["problems"] == []
    seen = due(ending, check=True)
    assert seen["changed"] and not seen["certificates"]
    # Another name, no certificate at all, one that the host renews: all that is for an apply, or for the host.
    wanted = [{"name": "public", "ca": "public", "usage": "server", "names": ["other.lemon.test"]}]
    assert (
        not due(fresh, requests=wanted)["changed"] and not due(None)["changed"] and not due(ending, renewed_on_host=["public"])["changed"]
    )
    assert Certificate("", due(ending, requests=wanted)["certificates"]["public"]).names == ["other.lemon.test"]


def test_what_is_due_and_cant_be_renewed_is_named(tmp_path: Path) -> None:
    _, csr = _key_and_request(tmp_path, "a")
    ending, _ = _signed(tmp_path, csr, days=20)
    (tmp_path / "pki" / "public").rename(tmp_path / "pki" / "gone")
    done = sign.renew_due(_order(tmp_path, csr, ending))
    assert "another site's directory" in done["problems"][0] and not done["certificates"]
    assert not (tmp_path / "pki" / "public").exists(), "no CA is made"
    short = tmp_path / "short"
    short.mkdir()
    ending, _ = _signed(short, csr, ca_days=10)
    assert "certificates rotate" in sign.renew_due(_order(short, csr, ending))["problems"][0]


def test_the_host_makes_nothing_when_it_is_asked_what_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_host, "PKI", tmp_path)
    key, _ = _key_and_request(tmp_path, "x")
    (tmp_path / "have.key").write_text(key)
    (tmp_path / "have.crt").write_text("the certificate")
    before = sorted(path.name for path in tmp_path.iterdir())
    requests = [{"name": "have"}, {"name": "lacking"}]
    done = on_host.prepare({"check": False, "only_due": True, "requests": requests, "new_keys": False, "renewed_on_host": []})
    assert done["requests"]["lacking"] == {"csr": None, "certificate": None} and done["changed"] == []
    assert done["requests"]["have"]["certificate"] == "the certificate" and "REQUEST" in done["requests"]["have"]["csr"]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


ROTATE = ROLES / "certificates/files/rotate_authorities.py"
NAMED = ["hosts", "public", "store-clients"]


def _authorities(root: Path) -> Path:
    for name in NAMED:
        (root / name).mkdir(parents=True)
        sign.make_authority(root / name, {"ca_label": "lemonstand", "ca_days": 3650, "ca_name_constraints": {}})
    return root


def _rotate(root: Path, step: str, *names: str, code: int = 0) -> str:
    order = {
        "directory": str(root), "step": step, "authorities": list(names), "ca_label": "lemonstand", "ca_days": 3650,
        "ca_name_constraints": {}, "check": False,
    }  # fmt: skip
    done = subprocess.run([sys.executable, str(ROTATE)], input=json.dumps(order), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def _trusted(root: Path, name: str) -> list[str]:
    return [Certificate("", sign.to_pem(each)).sha256 for each in sign.trusted(root, sign.load_authority(root / name))]


def test_cas_are_changed_with_an_overlap_and_steps_can_be_taken_again(tmp_path: Path) -> None:
    root = _authorities(tmp_path / "pki")
    (old,) = _trusted(root, "hosts")
    clients = (root / "public/ca.crt").read_bytes()
    for _ in range(2):
        _rotate(root, "begin")
        kept, new = _trusted(root, "hosts")
        assert kept == old and new != old
    assert "under way" in _rotate(root, "begin", "hosts", code=1)
    for _ in range(2):
        _rotate(root, "sign")
        assert _trusted(root, "hosts") == [new, old]
        assert _rotate(root, "begin") == "", "what has begun to sign is not made anew"
    assert filter_plugin("authorities").authority_faults(root) == []
    known = filter_plugin("authorities").authorities(root)
    assert known["hosts"]["fingerprints"] == [new, old] and len(known["public"]["fingerprints"]) == 1
    _rotate(root, "drop")
    assert _trusted(root, "hosts") == [new]
    _rotate(root, "end")
    assert sign.read_rotation(root) == {} and not (root / "hosts/old").exists() and len(list(root.glob("retired/*/*/ca.key"))) == 2
    assert (root / "public/ca.crt").read_bytes() == clients, "clients trust it too"
    assert _rotate(root, "sign") == _rotate(root, "drop") == _rotate(root, "end") == ""
    _rotate(root, "begin", "public")
    assert sign.read_rotation(root)["authorities"] == ["public"]


def test_a_change_of_cas_that_was_cut_off_between_two_files_goes_on(tmp_path: Path) -> None:
    root = _authorities(tmp_path / "pki")
    _rotate(root, "begin", "hosts")
    old, new = _trusted(root, "hosts")
    (root / "hosts/old").mkdir()
    for name in ("ca.key", "ca.crt"):
        (root / "hosts/old" / name).write_bytes((root / "hosts" / name).read_bytes())
    (root / "hosts/ca.key").write_bytes((root / "hosts/next/ca.key").read_bytes())
    assert filter_plugin("authorities").authority_faults(root) == []
    assert _trusted(root, "hosts") == [new, old], "what signs is the next one, with its certificate"
    _rotate(root, "begin")
    _rotate(root, "sign")
    assert _trusted(root, "hosts") == [new, old]
    assert Certificate("", (root / "hosts/ca.crt").read_text()).sha256 == new and not (root / "hosts/next").exists()


def test_cas_that_are_not_there_cant_be_changed(tmp_path: Path) -> None:
    root = _authorities(tmp_path / "pki")
    assert "there is no CA stores" in _rotate(root, "begin", "stores", code=1)
    assert not (root / "rotation.json").exists()
    assert "lemonstand apply" in _rotate(tmp_path / "nowhere", "begin", code=1)
