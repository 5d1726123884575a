"""A signer elsewhere: what it signs, what it refuses, and what lies on the controller."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lemonstand.remote.certificates import Certificate
from lemonstand.site.shipped import filter_plugin
from programs import load

FILES = Path(__file__).resolve().parents[2] / "roles/certificates/files"
sign = load("roles/certificates/files/sign_certificates.py")
program = load("roles/certificates/files/certificate_signer.py")
NAME = "store.site.example.org"
POLICY: dict[str, Any] = {
    "label": "lemonstand", "days": 90, "ca_days": 3650, "rotate": True, "seal": True,
    "authorities": {
        "hosts": {"usages": ["server"], "names": [NAME, "relay.site.example.org"], "suffixes": ["site.example.org"]},
        "store-clients": {"usages": ["client"], "names": ["frontend.site.example.org"], "suffixes": []},
    },
}  # fmt: skip


class Site:
    """A signer with its policy and directory, and a controller that asks it."""

    def __init__(self, folder: Path) -> None:
        self.theirs, self.pki = folder / "signer", folder / "pki"
        self.theirs.mkdir(mode=0o700)
        self.policy = folder / "policy.json"
        self.allow(POLICY)
        self.command = [sys.executable, str(FILES / "certificate_signer.py"), str(self.policy)]

    def allow(self, policy: dict[str, Any]) -> None:
        self.policy.write_text(json.dumps({**policy, "directory": str(self.theirs)}), encoding="utf-8")

    def order(self, csr: str | None, certificate: str | None = None, **others: Any) -> dict[str, Any]:
        return {
            "check": False, "host": "store", "directory": str(self.pki), "signer": self.command,
            "requests": [{"name": "mail-store", "ca": "hosts", "usage": "server", "names": [NAME]}],
            "prepared": {"mail-store": {"csr": csr, "certificate": certificate}}, "trusted_cas": ["hosts"], "ca_label": "other",
            "ca_name_constraints": {}, "ca_days": 1, "days": 90, "renew_days": 30, "renew_now": False, "renewed_on_host": [], **others,
        }  # fmt: skip

    def signer(self) -> Any:
        self.pki.mkdir(exist_ok=True)
        return sign.Signer(self.command, self.pki, check=False, host="store", days=90)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _csr() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_a_signer_signs_and_no_key_of_a_ca_is_on_the_controller(site: Site) -> None:
    csr = _csr()
    done = sign.work(site.order(csr))
    certificate = done["certificates"]["mail-store"]
    ca = (site.theirs / "hosts/ca.crt").read_text()
    assert done["cas"] == {"hosts": ca} and (site.pki / "hosts/ca.crt").read_text() == ca
    assert Certificate("", certificate).names == [NAME] and "lemonstand hosts CA" in Certificate("", certificate).signer
    assert not list(site.pki.rglob("*.key")) and filter_plugin("authorities").authority_faults(site.pki, {"command": ["x"]}) == []
    (line,) = (site.theirs / "hosts/issued.jsonl").read_text().splitlines()
    assert json.loads(line)["host"] == "store" and json.loads(line)["names"] == [NAME]
    again = sign.work(site.order(csr, certificate))
    assert again["changed"] == [] and again["certificates"]["mail-store"] == certificate
    assert len((site.theirs / "hosts/issued.jsonl").read_text().splitlines()) == 1


def test_a_controller_without_copies_hears_of_the_cas_before_it_looks_at_hosts(site: Site) -> None:
    sign.work(site.order(_csr()))
    known = filter_plugin("authorities").authorities
    here = known(site.pki)
    assert known(site.pki.parent / "empty", site.command) == here and list(here) == ["hosts"]
    assert known(site.pki, ["/nonexistent"]) == here, "who has copies asks nobody"
    assert known(site.pki.parent / "empty") == {} and not (site.pki.parent / "empty").exists()
    with pytest.raises(ValueError, match="lemonstand_signer"):
        known(site.pki.parent / "empty", ["/nonexistent"])


def test_a_check_makes_nothing_anywhere(site: Site) -> None:
    done = sign.work(site.order(None, check=True))
    assert any(line.startswith("CA hosts in the signer") for line in done["changed"]) and "certificate mail-store" in done["changed"][-1]
    assert not site.pki.exists() and not (site.theirs / "hosts").exists()


def test_what_ends_soon_is_signed_by_the_signer_and_nothing_due_asks_nobody(site: Site) -> None:
    csr = _csr()
    first = sign.work(site.order(csr, days=10))["certificates"]["mail-store"]
    due = sign.renew_due(site.order(csr, first))
    assert "the new one" in due["changed"][0] and due["certificates"]["mail-store"] != first and due["problems"] == []
    good = due["certificates"]["mail-store"]
    assert sign.renew_due(site.order(csr, good, signer=["/nonexistent"]))["changed"] == []


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name it does not have": ({"names": ["edge.site.example.org"]}, "does not sign for edge.site.example.org by the CA hosts"),
    "a further name": ({"names": [NAME, "mail.example.org"]}, "does not sign for mail.example.org"),
    "another CA's name": ({"names": ["frontend.site.example.org"]}, "does not sign for frontend.site.example.org"),
    "another use": ({"usage": "client"}, "nothing for a client"),
    "no known use": ({"usage": "ca"}, "usage"),
    "no name": ({"names": []}, "at least one name"),
    "a CA it does not have": ({"ca": "public"}, "has no CA public"),
    "a way out of the directory": ({"ca": "../hosts"}, "can't be the name"),
    "a longer life": ({"days": 91}, "90 days at the most"),
    "a life that has ended": ({"days": -1}, "90 days at the most"),
    "no life": ({"days": "nan"}, "90 days at the most"),
    "no request": ({"csr": "x"}, "no question"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_policy_does_not_have_is_refused_with_nothing_done(site: Site, case: str) -> None:
    changed, words = REFUSED[case]
    policy = {**POLICY, "directory": str(site.theirs)}
    asked = {"version": 1, "check": False, "question": "authorities", "names": ["hosts", "store-clients"]}
    program.answer(policy, json.dumps(asked))
    right = {"ca": "hosts", "usage": "server", "names": [NAME], "csr": _csr(), "days": 90, "host": "store", "name": "mail-store"}
    requests = [*([] if case == "no request" else [right]), {**right, **changed}]
    with pytest.raises(program.SignError) as refused:
        program.answer(policy, json.dumps({**asked, "question": "sign", "requests": requests}))
    assert words in str(refused.value)
    assert not list(site.theirs.glob("*/issued.jsonl")), "not even what was right in the same question"
    assert sorted(path.name for path in site.theirs.iterdir()) == [".lock", "hosts", "store-clients"]


def test_of_several_of_which_one_can_not_be_signed_none_is(site: Site) -> None:
    policy = {**POLICY, "directory": str(site.theirs)}
    asked = {"version": 1, "check": False, "question": "authorities", "names": ["hosts"]}
    program.answer(policy, json.dumps(asked))
    right = {"ca": "hosts", "usage": "server", "names": [NAME], "csr": _csr(), "days": 90, "host": "store", "name": "mail-store"}
    for wrong in ({"csr": "x"}, {"csr": right["csr"].replace("A", "B", 5)}, {"host": "relay", "csr": None}):
        with pytest.raises(program.SignError):
            program.answer(policy, json.dumps({**asked, "question": "sign", "requests": [right, {**right, **wrong}]}))
        assert not list(site.theirs.glob("*/issued.jsonl"))


def test_a_directory_that_can_not_be_used_is_named(site: Site) -> None:
    asked = {"version": 1, "check": False, "question": "authorities", "names": ["hosts"]}
    (site.theirs / "file").write_text("", encoding="ascii")
    with pytest.raises(program.SignError, match="CAs can't be read or written"):
        program.answer({**POLICY, "directory": str(site.theirs / "file")}, json.dumps(asked))


def test_a_controller_that_has_nothing_yet_can_have_a_text_sealed(site: Site) -> None:
    asked = {"version": 1, "check": False, "question": "authorities", "names": ["hosts"]}
    program.answer({**POLICY, "directory": str(site.theirs)}, json.dumps(asked))
    signer = sign.Signer(site.command, site.pki, check=False)
    assert signer.seal('{"generation": 1, "active": {}}') and (site.pki / "hosts/ca.crt").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("", "no question"), ("[]", "no question"), ("{}", "no question"), ('{"version": 2}', "version 1"),
        ('{"version": 1, "check": false, "question": "keys"}', "no question"),
        ('{"version": 1, "check": false, "question": "sign", "requests": [null]}', "no question"),
        ('{"version": 1, "check": false, "question": "rotate", "step": "begin", "authorities": ["public"]}', "has no CA public"),
        ('{"version": 1, "check": false, "question": "rotate", "step": "steal", "authorities": []}', "no question"),
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(site: Site, asked: str, words: str) -> None:
    with pytest.raises(program.SignError) as refused:
        program.answer({**POLICY, "directory": str(site.theirs)}, asked)
    assert words in str(refused.value) and [path.name for path in site.theirs.iterdir()] in ([], [".lock"])


def test_a_refusal_is_an_answer_too(site: Site) -> None:
    for asked, words in (("{}", "no question"), ("x" * ((1 << 20) + 1), "octets at the most")):
        done = subprocess.run(site.command, input=asked, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and words in json.loads(done.stdout)["error"] and done.stderr == ""


def test_only_a_text_that_says_who_serves_is_sealed(site: Site) -> None:
    signer = site.signer()
    signer.ask("authorities", names=["hosts"])
    text = json.dumps({"generation": 3, "active": {"store1": {"host": "standby1", "since": 3}}})
    ca = x509.load_pem_x509_certificate((site.pki / "hosts/ca.crt").read_bytes()).public_key()
    assert isinstance(ca, ec.EllipticCurvePublicKey)
    ca.verify(bytes.fromhex(signer.seal(text)), text.encode(), ec.ECDSA(hashes.SHA256()))
    for other in ("{}", '{"generation": true, "active": {}}', "0" + text, json.dumps({**json.loads(text), "more": 1}), '"x"', " " + text):
        with pytest.raises(sign.SignError, match="refuses"):
            signer.seal(other)
    site.allow({**POLICY, "seal": False})
    with pytest.raises(sign.SignError, match="seals nothing"):
        signer.seal(text)


def _rotate(site: Site, step: str, code: int = 0) -> str:
    order = {"directory": str(site.pki), "signer": site.command, "step": step, "authorities": [], "check": False}
    done = subprocess.run(
        [sys.executable, str(FILES / "rotate_authorities.py")], input=json.dumps(order), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_cas_of_a_signer_are_changed_with_an_overlap(site: Site) -> None:
    csr = _csr()
    first = sign.work(site.order(csr))
    old = first["cas"]["hosts"]
    assert "the next one is made" in _rotate(site, "begin")
    both = sign.work(site.order(csr, first["certificates"]["mail-store"]))
    assert both["changed"] == [] and both["cas"]["hosts"].startswith(old) and both["cas"]["hosts"] != old
    assert (site.pki / "hosts/next/ca.crt").exists() and filter_plugin("authorities").rotation(site.pki)["step"] == "trust"
    assert "signs" in _rotate(site, "sign")
    second = sign.work(site.order(csr, first["certificates"]["mail-store"]))
    assert second["changed"] == ["certificate mail-store: it is not of this CA"] and second["cas"]["hosts"].endswith(old)
    _rotate(site, "drop")
    assert old not in sign.work(site.order(csr, second["certificates"]["mail-store"]))["cas"]["hosts"]
    _rotate(site, "end")
    assert not (site.pki / "rotation.json").exists() and sorted(path.name for path in (site.pki / "hosts").iterdir()) == ["ca.crt"]
    assert not list(site.pki.rglob("*.key"))
    site.allow({**POLICY, "rotate": False})
    assert "no change of CAs" in _rotate(site, "begin", code=1)


def test_another_ca_than_hosts_trust_is_refused_and_one_that_came_by_rotation_is_not(site: Site, tmp_path: Path) -> None:
    csr = _csr()
    sign.work(site.order(csr))
    before = (site.pki / "hosts/ca.crt").read_bytes()
    for step in ("begin", "sign", "drop", "end"):
        subprocess.run(
            site.command,
            input=json.dumps({"version": 1, "check": False, "question": "rotate", "step": step, "authorities": []}),
            text=True,
            check=True,
            capture_output=True,
        )
    sign.work(site.order(csr))
    assert (site.pki / "hosts/ca.crt").read_bytes() != before, "another controller had them changed"
    (tmp_path / "strange").mkdir()
    strange = Site(tmp_path / "strange")
    site.command = strange.command
    now = (site.pki / "hosts/ca.crt").read_bytes()
    with pytest.raises(sign.SignError, match="another CA hosts than the one hosts trust"):
        sign.work(site.order(csr))
    assert (site.pki / "hosts/ca.crt").read_bytes() == now


def _said(folder: Path, text: str) -> Callable[[], list[str]]:
    script = folder / "says.py"
    script.write_text(text, encoding="utf-8")
    return lambda: [sys.executable, str(script)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("print('hello')", "gives no answer: hello"),
        ("import sys; sys.exit('Permission denied (publickey).')", "Permission denied"),
        ("print('{}')", "gives no answer"),
        ("print('[]')", "gives no answer"),
        ("import time; time.sleep(60)", "timed out"),
    ],
)
def test_a_signer_that_gives_no_answer_is_named(site: Site, tmp_path: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign, "SIGNER_SECONDS", 5.0 if "sleep" not in text else 0.5)
    with pytest.raises(sign.SignError, match="lemonstand_signer") as fault:
        sign.work(site.order(_csr(), signer=_said(tmp_path, text)()))
    assert words in str(fault.value)
    with pytest.raises(sign.SignError, match="can't be asked"):
        sign.work(site.order(_csr(), signer=["/nonexistent/ssh"]))


def test_what_a_signer_signed_is_looked_at(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    csr, other = _csr(), _csr()
    ask = sign.Signer.ask

    def swapped(self: Any, question: str, **given: Any) -> Any:
        for request in given.get("requests", ()):
            request["csr"] = other
        return ask(self, question, **given)

    monkeypatch.setattr(sign.Signer, "ask", swapped)
    with pytest.raises(sign.SignError, match="signed something else than mail-store"):
        sign.work(site.order(csr))


def test_keys_left_behind_are_refused(site: Site) -> None:
    sign.work(site.order(_csr()))
    judge = filter_plugin("authorities").authority_faults
    assert "say in lemonstand_signer who has it" in judge(site.pki)[0]
    for left in ("hosts/ca.key", "hosts/old/ca.key", "retired/20261201T000000.0Z/hosts/ca.key"):
        path = site.pki / left
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("key")
        (fault,) = judge(site.pki, {"command": ["x"]})
        assert str(path) in fault and "move it there" in fault
        path.unlink()


SPOILT: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda policy: policy.pop("days"), "lacks 'days'"),
    (lambda policy: policy.update(rotation=True), "'rotation', which means nothing"),
    (lambda policy: policy.update(seal="no"), "'seal'"),
    (lambda policy: policy["authorities"]["hosts"].update(usage=["server"]), "'usage', which means nothing"),
    (lambda policy: policy["authorities"]["hosts"].update(usages=["any"]), "usages are"),
    (lambda policy: policy["authorities"].update({"../x": policy["authorities"]["hosts"]}), "can't have that name"),
    (lambda policy: policy["authorities"].update(retired=policy["authorities"]["hosts"]), "can't have that name"),
]


@pytest.mark.parametrize("number", range(len(SPOILT)))
def test_a_policy_that_is_not_whole_is_named(number: int) -> None:
    spoil, words = SPOILT[number]
    policy = json.loads(json.dumps(POLICY))
    assert program.policy_faults({**policy, "directory": "/x"}) == []
    spoil(policy)
    assert any(words in fault for fault in program.policy_faults({**policy, "directory": "/x"}))


def test_a_signer_with_such_a_policy_signs_nothing(site: Site) -> None:
    site.allow({**POLICY, "seal": "no"})
    looked = subprocess.run([*site.command[:2], "--policy", str(site.policy)], capture_output=True, text=True, check=False)
    assert looked.returncode == 1 and "'seal'" in looked.stderr
    with pytest.raises(sign.SignError, match="policy is not whole"):
        sign.work(site.order(_csr()))
    assert not (site.theirs / "hosts").exists()


def test_the_policy_of_a_site_has_its_names_and_no_more() -> None:
    hosts = {
        "store": {
            "certificates_trusted_cas": ["hosts", "store-clients"], "certificates_days": 30,
            "certificates_requests": [{"name": "mail-store", "ca": "hosts", "usage": "server", "names": [NAME]}],
        },
        "relay": {
            "certificates_requests": [
                {"name": "relay", "ca": "hosts", "usage": "server", "names": ["relay.site.example.org"]},
                {"name": "public", "ca": "public", "usage": "server", "names": ["mx.example.org"]},
            ],
        },
    }  # fmt: skip
    policy = filter_plugin("authorities").signing_policy(hosts, ["store", "relay"])
    assert policy["authorities"] == {
        "hosts": {"usages": ["server"], "names": ["relay.site.example.org", NAME], "suffixes": []},
        "public": {"usages": ["server"], "names": ["mx.example.org"], "suffixes": []},
        "store-clients": {"usages": [], "names": [], "suffixes": []},
    }
    assert policy["days"] == 30 and policy["ca_days"] == 3650 and policy["label"] == "lemonstand"
    assert program.policy_faults({**policy, "directory": "/x"}) == []
