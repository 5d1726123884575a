"""The site model refuses every spoilt site, and says what, where and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.constants import DEFAULT_VAULT_ID_MATCH
from ansible.parsing.vault import VaultLib, VaultSecret

from lemonstand.errors import InputErrors
from lemonstand.policy import load_flows, load_timers
from lemonstand.site import Site, build, load_site
from lemonstand.site.raw import RawSite
from lemonstand.site.reader import read
from sample_site import BAD_SITES, Bad, member, sound_site, write_site

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"


def model_of(folder: Path) -> Site:
    """The model, read in this process (the command reads in one of its own)."""
    return build(folder, RawSite.from_plain(read(folder, PLAYBOOKS)), load_flows(), load_timers())


def test_sound_site_has_no_fault(tmp_path: Path) -> None:
    site = model_of(write_site(tmp_path, sound_site()))
    assert [host.name for host in site.group("stores")] == ["store"]
    assert str(site.hosts["relay"].interfaces["dmz"].ipv4) == "192.0.2.20"
    assert site.store_of(site.settings.users[0]) == "store"
    assert not site.is_lab


@pytest.mark.parametrize("bad", BAD_SITES, ids=lambda bad: bad.name)
def test_spoilt_site_is_refused(bad: Bad, tmp_path: Path) -> None:
    tree = sound_site()
    bad.spoil(tree)
    assert tree != sound_site(), "the table's entry changes nothing"
    with pytest.raises(InputErrors) as caught:
        model_of(write_site(tmp_path, tree))
    fitting = [problem for problem in caught.value.problems if bad.what in problem.what]
    assert fitting, f"no fault says {bad.what!r}:\n{caught.value}"
    assert bad.where in fitting[0].where
    assert bad.remedy in fitting[0].remedy
    assert caught.value.exit_code == 2


def test_all_faults_are_told_together(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_tls_profile"] = "sloppy"
    tree["all"]["lemonstand_users"][1]["store"] = "nowhere"
    member(tree, "relays", "relay")["lemonstand_interfaces"]["dmz"]["ipv4"] = "192.0.2.99"
    with pytest.raises(InputErrors) as caught:
        model_of(write_site(tmp_path, tree))
    assert len(caught.value.problems) == 3
    assert str(caught.value).endswith("3 faults in all")


def test_fault_shared_by_all_hosts_is_told_once(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_dns_resolvers"] = ["nonsense"]
    with pytest.raises(InputErrors) as caught:
        model_of(write_site(tmp_path, tree))
    # Each of the two families says in pydantic's words why it isn't an address; no host repeats them.
    assert len({problem.where for problem in caught.value.problems}) == 1
    assert len(caught.value.problems) <= 2


def test_passwords_are_in_no_message_and_no_representation(tmp_path: Path) -> None:
    tree = sound_site()
    site = model_of(write_site(tmp_path / "sound", tree))
    assert "correct horse" not in repr(site)
    tree["all"]["lemonstand_user_passwords"]["bob@lemon.example"] = ["Tr0ub4dor"]
    with pytest.raises(InputErrors) as caught:
        model_of(write_site(tmp_path / "bad", tree))
    assert "Tr0ub4dor" not in str(caught.value)


def test_password_hash_needs_no_password(tmp_path: Path) -> None:
    tree = sound_site()
    del tree["all"]["lemonstand_user_passwords"]["bob@lemon.example"]
    tree["all"]["lemonstand_users"][1]["password_hash"] = "{SSHA}NHqZKoTHLmiSaXSyHEhpbtmBpJdzYWx0"
    assert model_of(write_site(tmp_path, tree)).settings.users[1].password_hash == "{SSHA}NHqZKoTHLmiSaXSyHEhpbtmBpJdzYWx0"


def test_several_stores_ask_for_a_name(tmp_path: Path) -> None:
    tree = sound_site()
    second = {"device": "store0", "ipv4": "192.0.2.140", "ipv6": "2001:db8:4::11"}
    tree["hosts"]["all"]["children"]["stores"]["hosts"]["store2"] = {"lemonstand_interfaces": {"store": second}}
    with pytest.raises(InputErrors, match="has no store") as caught:
        model_of(write_site(tmp_path, tree))
    assert "alice@lemon.example" in str(caught.value)
    assert "store, store2" in str(caught.value)


def test_foreign_variables_and_role_variables_are_allowed(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"] |= {"my_thing": 1, "lemonstand_foreign_variables": ["my_thing"], "sysctl_not_ours": ["net.netfilter.nf_conntrack_max"]}
    assert model_of(write_site(tmp_path, tree)).settings.foreign_variables == ("my_thing",)


def test_load_site_reads_the_environment_it_is_given(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_mx_name"] = "{{ lookup('env', 'SAMPLE_MX') }}.lemon.example"
    site = load_site(write_site(tmp_path, tree), {"SAMPLE_MX": "mx7"})
    assert site.settings.mx_name == "mx7.lemon.example"


def test_no_inventory_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputErrors, match="there is no inventory"):
        load_site(tmp_path / "nothing")


def test_broken_yaml_names_the_file(tmp_path: Path) -> None:
    folder = write_site(tmp_path, sound_site())
    (folder / "group_vars" / "all" / "users.yml").write_text("lemonstand_users: [\n", encoding="utf-8")
    with pytest.raises(InputErrors) as caught:
        load_site(folder)
    assert "group_vars/all/users.yml" in str(caught.value)


@pytest.fixture
def vaulted(tmp_path: Path) -> tuple[Path, Path]:
    """A site whose passwords are in a vault file, and the file that opens it."""
    tree = sound_site()
    secret = yaml.safe_dump({"lemonstand_user_passwords": tree["all"].pop("lemonstand_user_passwords")})
    vault = VaultLib([(DEFAULT_VAULT_ID_MATCH, VaultSecret(b"opensesame"))])
    tree["files"]["group_vars/all/vault.yml"] = vault.encrypt(secret).decode("ascii")
    key = tmp_path / "vault-password"
    key.write_text("opensesame\n", encoding="ascii")
    return write_site(tmp_path / "site", tree), key


def test_vault_opens_with_its_password_file(vaulted: tuple[Path, Path]) -> None:
    folder, key = vaulted
    site = load_site(folder, {"ANSIBLE_VAULT_PASSWORD_FILE": str(key)})
    assert site.hosts["auth"].settings.user_passwords["bob@lemon.example"].get_secret_value() == "battery staple"


@pytest.mark.parametrize("password", [None, "wrong\n"], ids=["no password", "wrong password"])
def test_locked_vault_says_how_to_open_it(vaulted: tuple[Path, Path], password: str | None) -> None:
    folder, key = vaulted
    env = {}
    if password is not None:
        key.write_text(password, encoding="ascii")
        env["ANSIBLE_VAULT_PASSWORD_FILE"] = str(key)
    with pytest.raises(InputErrors) as caught:
        load_site(folder, env)
    assert len(caught.value.problems) == 1, "a locked vault must not be followed by faults it causes"
    assert "ANSIBLE_VAULT_PASSWORD_FILE" in caught.value.problems[0].remedy
    assert "vault.yml" in caught.value.problems[0].where
