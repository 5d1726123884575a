"""CA keys on a machine of their own: moved there, hosts notice nothing; what is signed, changed and refused goes by SSH."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lemonstand import lab as labs
from lemonstand.paths import data_dir, lab_dir

from .conftest import Command

pytestmark = pytest.mark.long

MACHINE = "handset"
"""Plays the signer: a machine of the lab that is none of the site's."""
THERE = "/var/lib/lemonstand-signer"
LET_IN = "Match User lemonstand-signer\n  AuthorizedKeysFile .ssh/authorized_keys\n"
"""Hosts of labs take keys from one file alone, which an ordinary Debian does not do."""
TLS = "test_certificates_name_their_host or test_every_leg_is_encrypted or test_every_flow_gets_through or certificates"


def _make_signer(lab: str, folder: Path) -> None:
    """What its owner does: takes the policy and the controller's key, by plain Ansible."""
    words = [
        str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(data_dir("inventories") / "lab"),
        str(data_dir("roles") / "certificates/examples/signer.yml"),
        "-e", f"signer_machine={MACHINE}", "-e", f"signer_policy={folder}/policy.json", "-e", f"signer_key={folder}/key.pub",
    ]  # fmt: skip
    env = {**os.environ, **labs.environment(lab)}
    for changed in (True, False):
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        assert ("changed=0 " not in done.stdout) == changed, "a second run changes nothing"


def _way_in(lab: str, key: Path) -> list[str]:
    """The command that asks: the lab's way to the machine, and this key alone."""
    config = subprocess.run(
        ["ssh", "-F", str(lab_dir(lab) / "ssh" / "config"), "-G", MACHINE], check=True, capture_output=True, text=True
    ).stdout
    known = dict(line.split(" ", 1) for line in config.splitlines() if " " in line)
    names = ("hostname", "port", "userknownhostsfile", "hostkeyalias", "proxycommand", "stricthostkeychecking")
    options = [word for name in names if name in known for word in ("-o", f"{name}={known[name]}")]
    whoever = ["-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-l", "lemonstand-signer"]
    return ["ssh", "-F", "none", *options, *whoever, MACHINE, "sign"]


@pytest.fixture(scope="module")
def signer(deployed: str, lemonstand: Command, on: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Options with which the lab's CAs are with a signer; they are back on the controller afterwards."""
    folder, pki = tmp_path_factory.mktemp("signer"), lab_dir(deployed) / "pki"
    lemonstand("certificates", "policy", "--lab", deployed, "--output", str(folder / "policy.json"))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    _make_signer(deployed, folder)
    on(MACHINE, f"printf '{LET_IN}' >/etc/ssh/sshd_config.d/zz-signer.conf && systemctl reload ssh")
    ssh = ["ssh", "-F", str(lab_dir(deployed) / "ssh" / "config"), MACHINE]
    names = sorted(path.parent.name for path in pki.glob("*/ca.crt"))
    files = [f"{name}/{file}" for name in names for file in ("ca.crt", "ca.key", "issued.jsonl")]
    packed = subprocess.run(["tar", "-C", str(pki), "-c", *files], check=True, capture_output=True).stdout
    subprocess.run([*ssh, f"tar -C {THERE} -x --no-same-owner && chown -R lemonstand-signer: {THERE}"], input=packed, check=True)
    command = _way_in(deployed, folder / "key")
    settings = folder / "signer.json"
    settings.write_text(json.dumps({"lemonstand_signer": {"command": command}}), encoding="utf-8")
    options = ["--lab", deployed, "-e", f"@{settings}"]
    refused = lemonstand("check", *options, code=2)
    assert "ca.key is here, though lemonstand_signer has the keys" in refused.stdout + refused.stderr
    for name in names:
        (pki / name / "ca.key").unlink()
    yield options
    back = subprocess.run([*ssh, f"tar -C {THERE} -c {' '.join(names)}"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-C", str(pki), "-x", "--no-same-owner"], input=back, check=True)
    lemonstand("apply", "--lab", deployed)


def _strange(command: list[str], **asked: Any) -> str:
    """What the signer says to whoever has the controller's key."""
    question = json.dumps({"version": 1, "check": False, **asked})
    done = subprocess.run(command, input=question, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def test_hosts_notice_nothing_and_no_ca_key_is_on_the_controller(
    signer: list[str], lemonstand: Command, on: Callable[..., str], last_run: Callable[[], dict[str, Any]], deployed: str
) -> None:
    lemonstand("apply", *signer)
    assert last_run()["changes"] == []
    assert not list((lab_dir(deployed) / "pki").rglob("ca.key"))
    lemonstand("verify", *signer, "-k", TLS)
    rows = json.loads(lemonstand("certificates", "list", *signer, "--json").stdout)
    assert {row["host"] for row in rows if row["uses"] == ["CA"]} == {"signer"}
    before = on(MACHINE, "cat", f"{THERE}/hosts/issued.jsonl").splitlines()
    lemonstand("certificates", "renew", *signer, "--limit", "store")
    after = on(MACHINE, "cat", f"{THERE}/hosts/issued.jsonl").splitlines()
    assert len(after) == len(before) + 1 and json.loads(after[-1])["host"] == "store"
    lemonstand("verify", *signer, "-k", TLS)


def test_cas_are_changed_while_the_signer_has_them(signer: list[str], lemonstand: Command, deployed: str) -> None:
    old = (lab_dir(deployed) / "pki/hosts/ca.crt").read_bytes()
    lemonstand("certificates", "rotate", *signer, "--authority", "hosts", "-e", "certificates_rotation_seconds=5")
    assert (lab_dir(deployed) / "pki/hosts/ca.crt").read_bytes() != old and not list((lab_dir(deployed) / "pki").rglob("ca.key"))
    lemonstand("verify", *signer, "-k", TLS)


def test_whoever_has_the_controller_gets_no_more_than_the_site_needs(signer: list[str], on: Callable[..., str]) -> None:
    command = json.loads(Path(signer[-1].removeprefix("@")).read_text(encoding="utf-8"))["lemonstand_signer"]["command"]
    assert "no question to a signer" in _strange([*command[:-1], "cat", f"{THERE}/hosts/ca.key"], question="keys"), "SSH runs nothing else"
    request = {"ca": "hosts", "usage": "server", "names": ["evil.example.org"], "csr": "", "days": 1, "host": "store", "name": "x"}
    assert "does not sign for evil.example.org" in _strange(command, question="sign", requests=[request])
    assert "has no CA ../hosts" in _strange(command, question="authorities", names=["../hosts"])
    through = subprocess.run([*command[:-2], "-W", "127.0.0.1:22", MACHINE], capture_output=True, timeout=60, check=False)
    assert through.returncode != 0 and b"SSH-2.0" not in through.stdout
    owner, mode = on(MACHINE, "stat", "-c", "'%U %a'", f"{THERE}/hosts/ca.key").split()
    assert (owner, mode) == ("lemonstand-signer", "600")


def test_a_signer_that_is_away_is_named_and_nothing_is_half_done(
    signer: list[str], lemonstand: Command, on: Callable[..., str], last_run: Callable[[], dict[str, Any]]
) -> None:
    on(MACHINE, "mv", "/etc/lemonstand-signer/.ssh", "/etc/lemonstand-signer/.away")
    try:
        shown = lemonstand("apply", *signer, code=1)
        assert "Permission denied" in shown.stdout + shown.stderr
    finally:
        on(MACHINE, "mv", "/etc/lemonstand-signer/.away", "/etc/lemonstand-signer/.ssh")
    lemonstand("apply", *signer)
    lemonstand("verify", *signer, "-k", TLS)
