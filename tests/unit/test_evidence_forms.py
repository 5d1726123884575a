"""Evidence compared, bundled, signed, as OSCAL, on the command line."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from trestle.oscal.assessment_results import Model

from lemonstand.cli import main
from lemonstand.errors import InputError, LemonstandError
from lemonstand.evidence.bundle import MANIFEST, SIGNATURE, read_bundle, write_bundle
from lemonstand.evidence.compare import compare
from lemonstand.evidence.merge import differs, result_of
from lemonstand.evidence.model import Measurement
from lemonstand.evidence.oscal import assessment_results
from lemonstand.evidence.secrets import GONE, Gate
from lemonstand.evidence.write import write_junit, write_plan
from lemonstand.policy.controls import load_controls
from sample_evidence import HOST, evidence, results


def test_an_unchanged_site_has_no_change() -> None:
    again = results()
    again[0].measured[0] = Measurement("delay", 0.73, "s", True)
    for result in again:
        result.time, result.seconds = "2026-11-26T10:00:00.000Z", 3.0
    assert compare(evidence(), evidence(again, ended="2026-11-26T10:01:00.000Z")) == []


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ({"host": {"packages": {"dovecot-core": "1:2.4.2-1"}}}, "version    store package dovecot-core: 1:2.4.1+dfsg1-6 -> 1:2.4.2-1"),
        ({"host": {"kernel": "6.13.0"}}, "host       store kernel: 6.12.0 -> 6.13.0"),
        ({"host": {"state": "b" * 64}}, "host       store state: aaaaaaaaaaaa -> bbbbbbbbbbbb"),
        ({"inventory": "c" * 64}, "inventory  files"),
        ({"hosts": {}}, "host       store: there -> nothing"),
        ({"code": {"commit": "d" * 40, "modified": True, "sha256": "d" * 64}}, "-> dddddddddddd (modified)"),
        (
            {"host": {"running": {"dovecot": {**HOST["running"]["dovecot"], "version": "", "outdated": ["/usr/lib/libssl.so.3"]}}}},  # type: ignore[index]
            "version    store runs dovecot: 1:2.4.1+dfsg1-6 -> outdated: /usr/lib/libssl.so.3",
        ),
    ],
)
def test_what_changed_is_named(new: dict[str, Any], words: str) -> None:
    (change,) = compare(evidence(), evidence(**new))
    assert words in str(change)


def test_changed_answers_and_values_are_named() -> None:
    other = results()
    other[2].outcome, other[2].message = "pass", ""
    other[1].measured[0] = Measurement("imap_idle_notify_interval", 120, "s")
    said = [str(change) for change in compare(evidence(), evidence(other[:-1]))]
    assert "control    LEM-7-01: failed -> proven (configuration)" in said
    assert "control    LEM-6-05: invalid -> not-measured" in said
    assert "check      test_y.py::test_broken[store]: fail (configuration) -> pass (configuration)" in said
    assert "check      test_z.py::test_lost: invalid (live) -> nothing" in said
    assert "value      test_y.py::test_setting[store] imap_idle_notify_interval: 1740 s -> 120 s" in said


def test_results_survive_their_json() -> None:
    document = evidence()
    assert [result_of(entry).plain() for entry in document["results"]] == document["results"]


def test_other_states_are_told_apart() -> None:
    one = evidence()
    assert differs(one, evidence()) == ""
    assert differs({**one, "schema": 1}, one) == "it has another form"
    assert differs(one, evidence(site="other")) == "it is about another site"
    assert differs(one, evidence(host={"state": "b" * 64})) == "what is deployed changed on store"


def _bundle(path: Path, key: Path | None = None, **changes: Any) -> dict[str, Any]:
    document = evidence(**changes)
    write_bundle(path, {"evidence.json": json.dumps(document).encode(), "oscal.json": b"{}"}, document, key)
    return document


def test_a_bundle_comes_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    document = _bundle(path)
    verdict = read_bundle(path)
    assert verdict.evidence == document
    assert verdict.parts == ("evidence.json", "evidence.schema.json", "oscal.json")
    assert (verdict.signed, verdict.signer) == (False, "")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.tar.gz"], "nothing else is left behind"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two key pairs, and a file that allows the first to sign."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("auditor", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)], check=True)
    public = (folder / "auditor.pub").read_text(encoding="ascii")
    (folder / "signers").write_text(f'auditor@example.org namespaces="lemonstand-evidence" {public}', encoding="ascii")
    return folder


def test_a_signature_names_its_signer(tmp_path: Path, keys: Path) -> None:
    _bundle(tmp_path / "b.tar.gz", keys / "auditor")
    assert read_bundle(tmp_path / "b.tar.gz", keys / "signers").signer == "auditor@example.org"
    assert read_bundle(tmp_path / "b.tar.gz").signed


def test_signatures_of_others_count_for_nothing(tmp_path: Path, keys: Path) -> None:
    _bundle(tmp_path / "stranger.tar.gz", keys / "stranger")
    _bundle(tmp_path / "unsigned.tar.gz")
    for name, word in (("stranger", "none of the signers"), ("unsigned", "nobody signed it")):
        with pytest.raises(LemonstandError, match=word):
            read_bundle(tmp_path / f"{name}.tar.gz", keys / "signers")
    with pytest.raises(LemonstandError, match="can't be signed"):
        _bundle(tmp_path / "no.tar.gz", tmp_path / "nothing")
    assert not (tmp_path / "no.tar.gz").exists()


def _rewritten(path: Path, change: dict[str, bytes | None]) -> Path:
    """A bundle with parts replaced, added, or (None) taken out."""
    with tarfile.open(path) as archive:
        parts = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    for name, content in change.items():
        if content is None:
            parts.pop(name)
        else:
            parts[name] = content
    other = path.with_name("other.tar.gz")
    with tarfile.open(other, "w:gz") as archive:
        for name, content in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return other


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"evidence.json": b"{}"}, "'evidence.json' was changed"),
        ({"oscal.json": None}, "'oscal.json' is missing"),
        ({"more.txt": b"x"}, "'more.txt' is not in the manifest"),
        ({MANIFEST: None}, "no bundle of evidence"),
        ({MANIFEST: b"{"}, "no bundle of evidence"),
        ({"../escape": b"x"}, "no part such as '../escape'"),
    ],
)
def test_a_bundle_that_was_touched_is_refused(tmp_path: Path, change: dict[str, bytes | None], word: str) -> None:
    _bundle(tmp_path / "b.tar.gz")
    with pytest.raises(LemonstandError, match=word.replace(".", r"\.")):
        read_bundle(_rewritten(tmp_path / "b.tar.gz", change))


def test_a_manifest_that_was_touched_breaks_the_signature(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "b.tar.gz"
    _bundle(path, keys / "auditor")
    with tarfile.open(path) as archive:
        manifest = archive.extractfile(MANIFEST).read()  # type: ignore[union-attr]
    other = _rewritten(path, {MANIFEST: manifest.replace(b'"sample"', b'"better"')})
    with pytest.raises(LemonstandError, match="not of this bundle"):
        read_bundle(other, keys / "signers")
    other = _rewritten(path, {SIGNATURE: b"-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n"})
    with pytest.raises(LemonstandError, match="none of the signers"):
        read_bundle(other, keys / "signers")


@pytest.mark.parametrize("content", [b"", b"no archive", gzip.compress(b"no archive")], ids=["empty", "text", "gzip"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.tar.gz").write_bytes(content)
    with pytest.raises(InputError):
        read_bundle(tmp_path / "b.tar.gz")


def test_oscal_holds_its_model() -> None:
    document = evidence()
    parsed = Model.parse_obj(assessment_results(document))
    (result,) = parsed.assessment_results.results
    assert len(result.findings) == len(load_controls().controls)
    assert len(result.observations) == len(document["results"])
    states = {finding.target.target_id: finding.target.status.state for finding in result.findings}
    assert str(states["lem-3-01_obj"].value) == "satisfied"
    assert str(states["lem-7-01_obj"].value) == "not-satisfied"
    assert {risk.status.__root__.__root__ for risk in result.risks} == {"deviation-requested"}, "nobody at the site has accepted"


def test_oscal_is_the_same_for_the_same_evidence() -> None:
    assert assessment_results(evidence()) == assessment_results(evidence())
    assert "half a verification" in json.dumps(assessment_results(evidence(complete=False)))
    Model.parse_obj(assessment_results(evidence([], hosts={}, waivers=[])))


def test_the_gate_takes_secrets_in_whole() -> None:
    gate = Gate(["correct horse battery"], [("alice@lemon.example", "correct horse")])
    assert gate.text("pass 'correct horse battery' and correct horse") == f"pass '{GONE}' and {GONE}"
    assert gate({"correct horse": ["x", {"y": "correct horse"}]}) == {GONE: ["x", {"y": GONE}]}
    assert gate.text("AGFsaWNlQGxlbW9uLmV4YW1wbGUAY29ycmVjdCBob3JzZQ==") == GONE, "as SASL PLAIN sends it"
    assert gate.text("Y29ycmVjdCBob3JzZQ==") == GONE
    assert gate.text("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl") == GONE, "even if it was cut"
    plain = "eyes on $6 and {CRYPT} alone, sha256 " + "ab" * 32
    assert gate.text(plain) == plain
    assert gate(7) == 7


def test_the_gate_is_quick_on_a_large_site() -> None:
    gate = Gate([], [(f"user{number}@lemon.example", f"password {number:08}") for number in range(20000)])
    found = gate({"seen": ["password 00012345", "nothing"] + [f"line {number}" for number in range(20000)]})
    assert found["seen"][:2] == [GONE, "nothing"]


def test_junit_has_a_word_for_each_outcome(tmp_path: Path) -> None:
    write_junit(tmp_path / "junit.xml", evidence())
    text = (tmp_path / "junit.xml").read_text(encoding="utf-8")
    assert 'name="sample" tests="6" failures="1" errors="1" skipped="2"' in text


def test_a_plan_as_junit(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan.xml", "sample", ["edge", "store"], [("store", "mail_store : Write")], ["version x"])
    text = (tmp_path / "plan.xml").read_text(encoding="utf-8")
    assert 'tests="3" failures="2"' in text
    assert "mail_store : Write" in text


def _run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["evidence", *words])
    return done.exit_code, done.output


def test_the_command_line(tmp_path: Path) -> None:
    old, new, bundle = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "b.tar.gz"
    old.write_text(json.dumps(evidence()), encoding="utf-8")
    new.write_text(json.dumps(evidence(complete=False, host={"kernel": "6.13.0"})), encoding="utf-8")
    _bundle(bundle)
    assert _run("diff", str(old), str(bundle)) == (0, "no change\n")
    code, said = _run("diff", str(old), str(new))
    assert (code, said.splitlines()[-1]) == (1, "1 changes")
    code, said = _run("verify", str(bundle))
    assert (code, said.splitlines()[0]) == (0, "whole: evidence.json, evidence.schema.json, oscal.json; not signed")
    code, said = _run("diff", str(old), str(tmp_path / "none.json"))
    assert code == 2
    assert "there is no evidence" in said
    (tmp_path / "form1.json").write_text(json.dumps({**evidence(), "schema": 1}), encoding="utf-8")
    assert _run("diff", str(old), str(tmp_path / "form1.json"))[0] == 2
