"""Ports, addresses and jump hosts no flow lets in, and directories of CAs that can't be used: named before a host is reached."""

from __future__ import annotations

import datetime
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from lemonstand import cli
from lemonstand.errors import InputError, InputErrors
from lemonstand.policy import load_flows, load_timers
from lemonstand.site import build
from lemonstand.site.raw import RawSite
from lemonstand.site.reader import read
from lemonstand.site.shipped import filter_plugin
from sample_site import Tree, member, sound_site, write_site

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = ROOT / "playbooks"
SSH_2222 = {"name": "ssh-2222", "from": "controllers", "to": "management", "protocol": "tcp", "ports": [2222], "reason": "sshd is there"}


def faults(folder: Path, tree: Tree) -> list[InputError]:
    """What is wrong with a site."""
    write_site(folder, tree)
    try:
        build(folder, RawSite.from_plain(read(folder, PLAYBOOKS)), load_flows(), load_timers())
    except InputErrors as caught:
        return [problem for problem in caught.problems if isinstance(problem, InputError)]
    return []


def with_port(place: str, **variables: Any) -> Tree:
    tree = sound_site()
    if place == "inventory":
        member(tree, "stores", "store").update(variables)
    elif place == "all":
        tree["all"].update(variables)
    else:
        tree["files"][place] = variables
    return tree


PORTS = {
    "the case": with_port("host_vars/store.yml", ansible_port=2222),
    "a group": with_port("group_vars/stores.yml", ansible_port=2200),
    "all": with_port("all", ansible_port=2022),
    "the inventory": with_port("inventory", ansible_port="10022"),
    "the older name": with_port("host_vars/store.yml", ansible_ssh_port=2222),
    "the older name wins": with_port("host_vars/store.yml", ansible_ssh_port=2222, ansible_port=22),
    "an argument": with_port("host_vars/store.yml", ansible_ssh_common_args="-o ServerAliveInterval=5 -p 2222"),
    "an option": with_port("host_vars/store.yml", ansible_ssh_extra_args="-o Port=2222"),
    "an option in quotes": with_port("host_vars/store.yml", ansible_ssh_args="-o 'Port 2222'"),
    "a template": with_port("host_vars/store.yml", ansible_port="{{ 2000 + 222 }}"),
    "a flow of another zone": with_port(
        "all", ansible_port=2222, lemonstand_flows_extra=[{**SSH_2222, "from": "dmz", "to": "stores"}]
    ),
    "a flow by UDP": with_port("all", ansible_port=2222, lemonstand_flows_extra=[{**SSH_2222, "protocol": "udp"}]),
    "a flow that is off": with_port("all", ansible_port=2222, lemonstand_flows_extra=[{**SSH_2222, "when": "managesieve"}]),
}  # fmt: skip


@pytest.mark.parametrize("name", PORTS)
def test_a_port_no_flow_admits_is_named(name: str, tmp_path: Path) -> None:
    found = [each for each in faults(tmp_path, PORTS[name]) if "no flow lets the controllers in on" in each.what]
    assert found
    assert "lemonstand_flows_extra" in found[0].remedy
    assert str(tmp_path) in found[0].where


@pytest.mark.parametrize("variable", ["ansible_port", "ansible_ssh_port"])
def test_a_flow_for_it_heals(variable: str, tmp_path: Path) -> None:
    tree = with_port("all", lemonstand_flows_extra=[SSH_2222])
    tree["files"]["host_vars/store.yml"] = {variable: 2222}
    assert not faults(tmp_path, tree)


@pytest.mark.parametrize("port", [22, "22", "{{ 11 * 2 }}"])
def test_the_flows_own_port_is_sound(port: Any, tmp_path: Path) -> None:
    assert not faults(tmp_path, with_port("host_vars/store.yml", ansible_port=port))


@pytest.mark.parametrize("group", ["handsets", "peers"])
def test_hosts_outside_the_site_are_not_filtered(group: str, tmp_path: Path) -> None:
    tree = sound_site()
    tree["hosts"]["all"]["children"][group] = {"hosts": {"elsewhere": {"ansible_port": 2222}}}
    assert not [each for each in faults(tmp_path, tree) if "flow" in each.what]


def test_no_port_at_all(tmp_path: Path) -> None:
    assert [each.what for each in faults(tmp_path, with_port("host_vars/store.yml", ansible_port="ssh"))] == ["'ssh' is no port"]


def _ways(**variables: Any) -> Tree:
    tree = sound_site()
    store = member(tree, "stores", "store")
    store.update(variables)
    return tree


@pytest.mark.parametrize(
    ("tree", "word"),
    [
        (_ways(ansible_host="192.0.2.139"), "is store's address in 'store'"),
        (_ways(ansible_host="2001:db8:4::10"), "is store's address in 'store'"),
        (_ways(ansible_host="198.51.100.13"), "is an address of relay"),
        (_ways(ansible_ssh_host="192.0.2.20"), "is an address of relay"),
        (_ways(ansible_ssh_common_args="-J ops@203.0.113.77"), "by way of 203.0.113.77"),
        (_ways(ansible_ssh_common_args="-o ProxyJump=203.0.113.77:2222"), "by way of 203.0.113.77"),
        (_ways(ansible_ssh_extra_args="-o ProxyJump=first.example,203.0.113.78"), "by way of 203.0.113.78"),
        (_ways(ansible_ssh_args="-J [2001:db8:9::1]:22"), "by way of 2001:db8:9::1"),
        (_ways(ansible_ssh_common_args="-o 'ProxyCommand=ssh -q -p 22 -W %h:%p ops@203.0.113.79'"), "by way of 203.0.113.79"),
        (_ways(ansible_ssh_common_args='-o ProxyCommand="/usr/bin/ssh -F x -W [%h]:%p 203.0.113.80"'), "by way of 203.0.113.80"),
        (
            _ways(ansible_ssh_extra_args="-o StrictHostKeyChecking=yes -oProxyCommand='ssh ops@203.0.113.81 -W %h:%p'"),
            "by way of 203.0.113.81",
        ),
    ],
)
def test_addresses_no_flow_admits_are_named(tree: Tree, word: str, tmp_path: Path) -> None:
    assert [each.what for each in faults(tmp_path, tree) if word in each.what]


@pytest.mark.parametrize(
    "tree",
    [
        _ways(ansible_host="2001:db8:5::12"),
        _ways(ansible_host="store.site.lemon.example"),
        _ways(ansible_host="203.0.113.200"),  # translated on the way: the host is asked
        _ways(ansible_ssh_common_args="-J ops@198.51.100.254"),
        _ways(ansible_ssh_common_args="-J bastion.example"),
        _ways(ansible_ssh_common_args="-o 'ProxyCommand=ssh -W %h:%p bastion.example'"),
        _ways(ansible_ssh_common_args="-o 'ProxyCommand=nc -X 5 -x 203.0.113.5:1080 %h %p'"),
        _ways(ansible_ssh_common_args="-o 'ProxyCommand=ssh -W %h:%p"),  # half a quotation: ssh will say so
        _ways(ansible_connection="local", ansible_port=2222),
    ],
)
def test_ways_that_may_be_right_are_left_to_the_hosts(tree: Tree, tmp_path: Path) -> None:
    assert not faults(tmp_path, tree)


def test_two_hosts_are_not_one_machine(tmp_path: Path) -> None:
    tree = _ways(ansible_host="ops.example")
    member(tree, "relays", "relay")["ansible_host"] = "ops.example"
    assert [each.what for each in faults(tmp_path, tree)] == [
        "relay and store are reached by the same address ops.example: both would be made of one machine"
    ]


def test_plain_ansible_names_the_port(tmp_path: Path) -> None:
    folder = write_site(tmp_path, PORTS["the case"])
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder), "preflight.yml"]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=PLAYBOOKS, env=env, capture_output=True, text=True, check=False)
    assert "no flow lets the controllers in on 2222: nobody could reach store after an apply" in done.stdout
    assert "(ansible_port)" in done.stdout
    sound = write_site(tmp_path / "sound", sound_site())
    command = [*command[:2], str(sound), "preflight.yml", "-e", "ansible_port=2299"]
    done = subprocess.run(command, cwd=PLAYBOOKS, env=env, capture_output=True, text=True, check=False)
    assert "no flow lets the controllers in on 2299" in done.stdout


# --- what SSH will let in ---


def _through_the_edge() -> Tree:
    tree = _ways(ansible_ssh_common_args="-J 198.51.100.1")
    tree["all"]["lemonstand_controllers"] = ["198.51.100.1", "198.51.100.254"]
    member(tree, "edges", "edge")["sshd_jump_to"] = ["198.51.100.12:22"]
    return tree


LOST = {
    "a password": (_ways(ansible_password="x"), "store by password", "ansible_password"),
    "a password by its older name": (_ways(ansible_ssh_pass="x"), "store by password", "ansible_ssh_pass"),
    "root": (_ways(ansible_user="root", sshd_permit_root_login="no"), "will not let root in", "sshd_permit_root_login"),
    "through a host of the site": (
        _ways(ansible_ssh_common_args="-J 198.51.100.1"),
        "by way of edge, whose",
        "ansible_ssh_common_args",
    ),
    "through a host of the site that may not open shells": (
        _through_the_edge(),
        "no flow lets that host open a shell",
        "ansible_ssh_common_args",
    ),
    "routers where there is no leg": (_ways(lemonstand_accept_ra=["dmz"]), "where it has no leg", "lemonstand_accept_ra"),
    "an account that is a pattern": (_ways(lemonstand_ssh_users=["*"]), "", "lemonstand_ssh_users"),
}


@pytest.mark.parametrize("name", LOST)
def test_what_would_shut_the_operator_out_is_named(name: str, tmp_path: Path) -> None:
    tree, word, variable = LOST[name]
    found = [each for each in faults(tmp_path, tree) if word in each.what and variable in each.where]
    assert found, faults(tmp_path, tree)
    assert found[0].remedy


def test_a_password_is_not_told(tmp_path: Path) -> None:
    told = "\n".join(map(str, faults(tmp_path, _ways(ansible_password="hunter2"))))
    assert "ansible_password" in told and "hunter2" not in told


def test_ways_that_stay_are_sound(tmp_path: Path) -> None:
    tree = _ways(ansible_user="alice", sshd_permit_root_login="no", lemonstand_ssh_users=["bob"], lemonstand_accept_ra=["store"])
    assert not faults(tmp_path, tree)
    tree = _ways(ansible_ssh_common_args="-J 198.51.100.1")
    member(tree, "edges", "edge")["sshd_jump_to"] = ["198.51.100.12:22"]
    assert not [each for each in faults(tmp_path, tree) if "pass nobody on" in each.what]


# --- the directory with the CAs ---


def _signer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sign_certificates", ROOT / "roles/certificates/files/sign_certificates.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SIGN = _signer()


def pki(folder: Path, *names: str, days: int = 3650) -> Path:
    folder.mkdir(mode=0o700, parents=True)
    for name in names:
        SIGN.make_authority(folder / name, {"ca_label": "test", "ca_name_constraints": {}, "ca_days": days})
    return folder


def _lose(*names: str) -> Callable[[Path], object]:
    return lambda root: [(root / name).unlink() for name in names]


def _swap(root: Path) -> None:
    shutil.copy(root / "public" / "ca.key", root / "hosts" / "ca.key")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no key": (_lose("hosts/ca.key"), "hosts/ca.key is not"),
    "no certificate": (_lose("public/ca.crt"), "public/ca.crt is not"),
    "another key": (_swap, "is not the key of"),
    "an empty certificate": (lambda root: (root / "hosts/ca.crt").write_text(""), "holds no certificate"),
    "an empty key": (lambda root: (root / "hosts/ca.key").write_text(""), "holds no key"),
    "a key for all": (lambda root: (root / "hosts/ca.key").chmod(0o644), "others may read the key"),
    "a key for a group": (lambda root: (root / "hosts/ca.key").chmod(0o640), "others may read the key"),
    "a directory for all": (lambda root: root.chmod(0o777), "others may write in"),
    "a file": (lambda root: (shutil.rmtree(root), root.write_text("")), "is no directory"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_directory_of_cas_that_cant_be_used_is_named(name: str, tmp_path: Path) -> None:
    root = pki(tmp_path / "pki", "hosts", "public")
    assert filter_plugin("authorities").authority_faults(root) == []
    spoil, word = BROKEN[name]
    spoil(root)
    tree = sound_site()
    tree["all"]["lemonstand_pki_dir"] = str(root)
    found = faults(tmp_path / "site", tree)
    assert [each for each in found if word in each.what and each.remedy and "lemonstand_pki_dir" in each.where], found


def test_a_ca_that_ended_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early = SIGN.now() - datetime.timedelta(days=20)
    monkeypatch.setattr(SIGN, "now", lambda: early)
    root = pki(tmp_path / "pki", "hosts", days=10)
    (fault,) = filter_plugin("authorities").authority_faults(root)
    assert "hosts/ca.crt ended on" in fault and "--new-authorities" in fault


def test_what_is_not_there_yet_is_sound(tmp_path: Path) -> None:
    judge = filter_plugin("authorities")
    assert judge.authority_faults(tmp_path / "nowhere") == [] and judge.authorities(tmp_path / "nowhere") == {}
    root = pki(tmp_path / "pki", "hosts")
    (root / "retired" / "20260101T000000Z" / "hosts").mkdir(parents=True)
    assert judge.authority_faults(root) == []
    assert list(judge.authorities(root)) == ["hosts"]


def test_cas_are_known_by_what_hosts_hold(tmp_path: Path) -> None:
    """The fingerprint a host computes of a CA, and the key identifier openssl prints of what it signed, are the directory's."""
    root = pki(tmp_path / "pki", "hosts")
    known = filter_plugin("authorities").authorities(root)["hosts"]
    spec = importlib.util.spec_from_file_location("host_state", PLAYBOOKS / "files/host_state.py")
    assert spec is not None and spec.loader is not None
    state = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(state)
    held = tmp_path / "held"
    held.mkdir()
    shutil.copy(root / "hosts" / "ca.crt", held / "ca-hosts.crt")
    shutil.copy(root / "hosts" / "ca.crt", held / "issuer.crt")
    assert state.authorities(str(held)) == {"hosts": known["fingerprints"]}
    assert state.certificates(str(held)) == {"issuer": known["key_ids"][0]}


def test_a_key_without_its_certificate_is_not_written_over(tmp_path: Path) -> None:
    root = pki(tmp_path / "pki", "hosts")
    before = (root / "hosts/ca.key").read_bytes()
    (root / "hosts/ca.crt").unlink()
    with pytest.raises(SIGN.SignError, match=r"ca\.crt is not"):
        SIGN.load_authority(root / "hosts")
    assert (root / "hosts/ca.key").read_bytes() == before


def test_retired_cas_are_kept_and_sign_no_more(tmp_path: Path) -> None:
    root = pki(tmp_path / "pki", "hosts", "public")
    program = [sys.executable, str(PLAYBOOKS / "files/retire_authorities.py"), str(root)]
    said = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    assert said.count("changed: ") == 2
    assert filter_plugin("authorities").authorities(root) == {}
    assert len(list(root.glob("retired/*/*/ca.key"))) == 2
    assert subprocess.run(program, check=True, capture_output=True, text=True).stdout == ""


def test_new_cas_are_for_all_hosts(tmp_path: Path) -> None:
    folder = write_site(tmp_path, sound_site())
    done = CliRunner().invoke(cli.main, ["certificates", "renew", "--site", str(folder), "--limit", "store", "--new-authorities"])
    assert done.exit_code == 2
    assert "leave out --limit" in done.output
