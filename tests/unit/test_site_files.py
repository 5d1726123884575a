"""What the text of a site's files says beside their values: keys twice, files passed over, secrets that Jinja or YAML would change."""

from __future__ import annotations

import random
import string
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, TemplateError

from lemonstand.errors import InputError, InputErrors
from lemonstand.policy import load_flows, load_timers
from lemonstand.site import build
from lemonstand.site.files import duplicate_keys, holds_secrets, hush, is_eaten, is_secret
from lemonstand.site.raw import RawSite
from lemonstand.site.reader import read
from sample_site import Tree, sound_site, write_site

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
SECRET = "Xyzzy7Quux"
CLOCK = "lemonstand_clock_is_ours"
ALICE, BOB = "alice@lemon.example", "bob@lemon.example"


def faults(folder: Path) -> list[InputError]:
    """What is wrong with a site."""
    try:
        build(folder, RawSite.from_plain(read(folder, PLAYBOOKS)), load_flows(), load_timers())
    except InputErrors as caught:
        return [problem for problem in caught.problems if isinstance(problem, InputError)]
    return []


def site(folder: Path, files: dict[str, str], tree: Tree | None = None) -> Path:
    write_site(folder, tree or sound_site())
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


# --- a key twice ---

TWICE = {
    "at the top": (
        "group_vars/all/names.yml",
        "lemonstand_public_name: mail.example.org\nlemonstand_public_name: imap.example.org\n",
        ":2",
    ),
    "in a mapping": ("host_vars/store.yml", "lemonstand_interfaces:\n  store: {device: a}\n  store: {device: b}\n", ":3"),
    "in braces": ("group_vars/stores.yml", "lemonstand_timers: {hibernate: 30, idle_notify: 1740, hibernate: 60}\n", ":1"),
    "in a list": ("group_vars/all/x.yml", "lemonstand_middleboxes:\n  - name: a\n    established: 1\n    name: b\n", ":4"),
    "the same number": ("group_vars/all/x.yml", "lemonstand_foreign_variables:\n  - {1: a, 1: b}\n", ":2"),
    "yes and true": ("group_vars/all/x.yml", "lemonstand_timers:\n  yes: 1\n  true: 2\n", ":3"),
    "with and without quotes": ("group_vars/all/x.yml", "lemonstand_timers:\n  'hibernate': 1\n  hibernate: 2\n", ":3"),
    "a host": ("hosts.yml", "stores:\n  hosts:\n    store: {}\n    store: {}\n", ":4"),
    "in a file without an ending": ("group_vars/all/plain", "lemonstand_site_name: a\nlemonstand_site_name: b\n", ":2"),
    "in JSON": ("group_vars/all/x.json", '{"lemonstand_site_name": "a", "lemonstand_site_name": "b"}\n', ":1"),
    "below the folder": ("group_vars/all/deep/er.yaml", "lemonstand_site_name: a\nlemonstand_site_name: b\n", ":2"),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_key_twice_is_named(name: str, tmp_path: Path) -> None:
    path, text, line = TWICE[name]
    found = [each for each in faults(site(tmp_path, {path: text})) if "is there twice" in each.what]
    assert len(found) == 1
    assert found[0].where == f"{tmp_path}/{path}{line}"
    assert found[0].remedy == "keep one of the two"


def test_a_key_twice_in_a_vault_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word = tmp_path / "word"
    word.write_text("opener\n", encoding="ascii")
    folder = site(tmp_path / "site", {"group_vars/all/vault.yml": f"lemonstand_user_passwords:\n  {ALICE}: {SECRET}\n  {ALICE}: other\n"})
    sealed = [str(Path(sys.executable).parent / "ansible-vault"), "encrypt", "--vault-password-file", str(word)]
    subprocess.run([*sealed, str(folder / "group_vars/all/vault.yml")], check=True, capture_output=True)
    monkeypatch.setattr("ansible.constants.DEFAULT_VAULT_PASSWORD_FILE", str(word))
    found = [each for each in faults(folder) if "is there twice" in each.what]
    assert [each.where.rpartition("/")[2] for each in found] == ["vault.yml:3"]
    assert SECRET not in str(found)


def test_merged_keys_are_no_second_ones(tmp_path: Path) -> None:
    text = "a: &base {x: 1, y: 2}\nb: &more {z: 3}\nc:\n  <<: *base\n  x: 5\nd:\n  <<: [*base, *more]\n  z: 4\n"
    assert not list(duplicate_keys(yaml.compose(text), tmp_path / "x.yml"))
    text += "e:\n  <<: *base\n  x: 1\n  x: 2\n"
    assert [where for _, where, _ in duplicate_keys(yaml.compose(text), tmp_path / "x.yml")] == [f"{tmp_path}/x.yml:12"]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12), st.integers(0, 4))
def test_as_many_as_there_are(keys: list[str], depth: int) -> None:
    """Generated: at any depth, each key beyond its first is told once."""
    lines = [f"{'  ' * level}in{level}:" for level in range(depth)] + [f"{'  ' * depth}{key}: {number}" for number, key in enumerate(keys)]
    told = list(duplicate_keys(yaml.compose("\n".join(lines)), Path("x.yml")))
    assert len(told) == len(keys) - len(set(keys))


def test_an_alias_bomb_is_no_hang(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    assert not list(duplicate_keys(yaml.compose("\n".join(lines)), tmp_path / "x.yml"))


def test_ansible_itself_refuses_a_key_twice(tmp_path: Path) -> None:
    folder = site(tmp_path, {TWICE["at the top"][0]: TWICE["at the top"][1]})
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder), "preflight.yml"],
        cwd=PLAYBOOKS, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ANSIBLE_CONFIG": str(PLAYBOOKS.parent / "ansible.cfg")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Found duplicate mapping key 'lemonstand_public_name'" in done.stdout + done.stderr


# --- two files, one variable ---


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"group_vars/stores/a.yml": "lemonstand_clock_is_ours: true\n", "group_vars/stores/b.yml": f"{CLOCK}: false\n"}, "b.yml:1"),
        ({"group_vars/stores/a.yml": f"{CLOCK}: true\n", "group_vars/stores/z.json": f'{{"{CLOCK}": false}}'}, "z.json:1"),
        ({"host_vars/store/a": "ansible_user: x\n", "host_vars/store/deep/b.yaml": "ansible_user: y\n"}, "b.yaml:1"),
        ({"group_vars/all/zz.yml": "lemonstand_tls_profile: modern\n"}, "zz.yml:1"),
        ({"host_vars/store.yml": "ansible_host: 198.51.100.99\n"}, "store.yml:1"),
    ],
)  # fmt: skip
def test_two_values_in_two_files_are_named(files: dict[str, str], where: str, tmp_path: Path) -> None:
    found = [each for each in faults(site(tmp_path, files)) if "with another value" in each.what]
    assert [each.where.rpartition("/")[2] for each in found] == [where]


def test_the_same_value_in_two_files_and_other_owners_are_not(tmp_path: Path) -> None:
    files = {
        "group_vars/stores/a.yml": "lemonstand_timers: {hibernate: 30, idle_notify: 1740}\n",
        "group_vars/stores/b.yml": "lemonstand_timers:\n  idle_notify: 1740\n  hibernate: 30\n",
        "group_vars/relays.yml": "lemonstand_clock_is_ours: false\n",
        "host_vars/store.yml": "lemonstand_clock_is_ours: true\n",
    }
    assert not [each for each in faults(site(tmp_path, files)) if "with another value" in each.what]


# --- files Ansible passes over ---


@pytest.mark.parametrize(
    "path",
    [
        "group_vars/all/site.yml.bak", "group_vars/all/site.yml.orig", "group_vars/all/site.yml~", "group_vars/all/site.ym",
        "hosts.yml.bak",
        "hosts.cfg", "hosts.yml.orig", "hosts.yml~", "group_vars/stores.yml.bak", "host_vars/store.yml.orig", "group_vars/all/more.d/x.yml",
        "group_vars/all/site.YML",
    ],
)  # fmt: skip
def test_files_that_are_passed_over_are_named(path: str, tmp_path: Path) -> None:
    found = [each for each in faults(site(tmp_path, {path: "lemonstand_site_name: other\n"})) if "passes over" in each.what]
    assert len(found) == 1
    assert found[0].where in f"{tmp_path}/{path}"


def test_the_second_of_two_endings_is_passed_over(tmp_path: Path) -> None:
    files = {"group_vars/stores.yml": "lemonstand_clock_is_ours: true\n", "group_vars/stores.yaml": "lemonstand_clock_is_ours: false\n"}
    assert [each.where.rpartition("/")[2] for each in faults(site(tmp_path, files)) if "passes over" in each.what] == ["stores.yaml"]


def test_documents_and_hidden_files_are_nobodys_business(tmp_path: Path) -> None:
    files = dict.fromkeys(
        ["README.md", "group_vars/all/README.md", "group_vars/all/.site.yml.swp", "group_vars/all/notes.txt", ".gitignore"], "x: y\n"
    )
    assert not faults(site(tmp_path, files))


# --- secrets ---

EATEN = [
    "50%{% off} 2026 ok",
    "a{{b",
    "{{7*7}}",
    "x{#y#}z",
    "{%",
    "{{",
    "}}{{",
    "{{ 'a' }}",
    "p{{ q }}r",
    "{% raw %}x{% endraw %}",
    "{#",
    "{{}}",
]
KEPT = ["%}", "}}", "#}", "a{b}c", "{ { x } }", "100%", "{", "$argon2id$v=19$m=1", "{SSHA}x"]


@pytest.mark.parametrize("text", EATEN)
def test_a_password_that_jinja_would_eat_is_named(text: str, tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_user_passwords"][ALICE] = f"{SECRET}{text}" if not text.startswith("{{ '") else text
    found = faults(site(tmp_path, {}, tree))
    assert [each.what for each in found] == [
        f"lemonstand_user_passwords.{ALICE} is a secret with braces in it that Ansible takes for a template"
    ]
    assert "!unsafe" in found[0].remedy
    assert SECRET not in str(found)


@pytest.mark.parametrize("text", KEPT)
def test_a_password_that_jinja_leaves_alone_is_not(text: str, tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_user_passwords"][ALICE] = text
    assert not faults(site(tmp_path, {}, tree))


@pytest.mark.parametrize("text", EATEN)
def test_the_remedy_heals(text: str, tmp_path: Path) -> None:
    """`!unsafe` keeps what was typed, letter by letter."""
    tree = sound_site()
    del tree["all"]["lemonstand_user_passwords"]
    quoted = text.replace("'", "''")
    vault = f"lemonstand_user_passwords:\n  {ALICE}: !unsafe '{quoted}'\n  {BOB}: plain\n"
    folder = site(tmp_path, {"group_vars/all/vault.yml": vault}, tree)
    assert not faults(folder)
    assert read(folder, PLAYBOOKS)["hosts"]["store"]["values"]["lemonstand_user_passwords"][ALICE] == text


@given(st.text(string.ascii_letters + "{}%# '\"", max_size=24))
def test_what_is_let_through_comes_out_as_it_went_in(text: str) -> None:
    """Generated: Jinja leaves every text alone that is not called eaten and is no template."""
    if is_eaten(text) or any(brace in text for brace in ("{{", "{%", "{#")):
        return
    try:
        assert Environment(autoescape=True, keep_trailing_newline=True).from_string(text).render() == text
    except TemplateError:
        raise AssertionError(text) from None


@pytest.mark.parametrize(
    "name", ["lemonstand_user_passwords", "ansible_become_password", "ansible_become_pass", "ansible_password", "ansible_ssh_pass"]
)
def test_every_secret_variable_is_looked_at(name: str, tmp_path: Path) -> None:
    value = f"{{{ALICE}: '{SECRET}{{%'}}" if name == "lemonstand_user_passwords" else f"'{SECRET}{{%'"
    found = [each for each in faults(site(tmp_path, {"host_vars/store.yml": f"{name}: {value}\n"})) if "braces" in each.what]
    assert [each.where.rpartition(":")[0] for each in found] == [f"{tmp_path}/host_vars/store.yml"]
    assert SECRET not in str(faults(tmp_path))


def test_hashes_and_what_a_secret_is_taken_from_are_looked_at_too(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_users"][0]["password_hash"] = f"{SECRET}{{{{"
    tree["all"]["lemonstand_user_passwords"] = "{{ kept_elsewhere }}"
    tree["all"]["lemonstand_foreign_variables"] = ["kept_elsewhere"]
    tree["all"]["kept_elsewhere"] = {ALICE: f"{SECRET}{{%", BOB: 12}
    found = faults(site(tmp_path, {}, tree))
    told = " ".join(each.what for each in found)
    assert "lemonstand_users[0].password_hash" in told
    assert f"kept_elsewhere.{ALICE} is a secret with braces" in told
    assert f"kept_elsewhere.{BOB} is a secret, and to YAML it is no text but a number" in told
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    "template", ["{{ lookup('ansible.builtin.env', 'NOWHERE') or 'x' * 12 }}", "{{ site_secret }}", "{{ site_secret | default('x') }}"]
)
def test_templates_on_purpose_are_kept(template: str, tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_foreign_variables"] = ["site_secret"]
    tree["all"]["site_secret"] = "correct horse"
    tree["all"]["lemonstand_user_passwords"][ALICE] = template
    assert not faults(site(tmp_path, {}, tree))


YAML_EATS = {
    "0123": "a number", "1234": "a number", "1.5e+3": "a number", "0x1F": "a number", "12:30:45": "a number", "1_000": "a number",
    "yes": "true or false", "No": "true or false", "on": "true or false", "null": "nothing", "~": "nothing", "": "nothing",
    "2026-11-29": "a date", ".inf": "a number", f"{SECRET} #1": "comment", f"{SECRET}\t# x": "comment", f"{SECRET}  ": "blanks behind",
    f"' {SECRET}'": "begins or ends", f'"{SECRET} "': "begins or ends", f"|\n    {SECRET}": "begins or ends",
    f'"{SECRET}\\n"': "begins or ends",
}  # fmt: skip


@pytest.mark.parametrize("text", YAML_EATS)
def test_a_password_that_yaml_would_change_is_named(text: str, tmp_path: Path) -> None:
    tree = sound_site()
    del tree["all"]["lemonstand_user_passwords"]
    vault = f"lemonstand_user_passwords:\n  {BOB}: plain\n  {ALICE}: {text}\n"
    found = faults(site(tmp_path, {"group_vars/all/vault.yml": vault}, tree))
    fitting = [each for each in found if YAML_EATS[text] in each.what]
    assert len(fitting) == 1, found
    assert fitting[0].where.startswith(f"{tmp_path}/group_vars/all/vault.yml:3")
    assert SECRET not in str(found)


@pytest.mark.parametrize("text", ["'0123'", '"yes"', "'null'", f"'{SECRET} #1'", f"{SECRET}#1", "1e3", "-x", f"|-\n    {SECRET}", "a b c"])
def test_a_password_that_yaml_leaves_alone_is_not(text: str, tmp_path: Path) -> None:
    tree = sound_site()
    del tree["all"]["lemonstand_user_passwords"]
    assert not faults(
        site(tmp_path, {"group_vars/all/vault.yml": f"lemonstand_user_passwords:\n  {BOB}: plain\n  {ALICE}: {text}\n"}, tree)
    )


@pytest.mark.parametrize(
    "text", [f"!{SECRET}", f"*{SECRET}", f"%{SECRET}", f"@{SECRET}", f'"\\q{SECRET}"', f"[{SECRET}", f"a: {SECRET}: b"]
)
def test_broken_yaml_shows_no_secret(text: str, tmp_path: Path) -> None:
    tree = sound_site()
    del tree["all"]["lemonstand_user_passwords"]
    found = faults(site(tmp_path, {"group_vars/all/vault.yml": f"lemonstand_user_passwords:\n  {BOB}: plain\n  {ALICE}: {text}\n"}, tree))
    assert found
    assert SECRET not in str(found)


def test_a_template_that_fails_shows_no_secret(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_user_passwords"][ALICE] = f"{{{{ {SECRET} }}}}"
    found = faults(site(tmp_path, {}, tree))
    assert found
    assert SECRET not in str(found)


def test_words_about_secrets() -> None:
    assert all(
        is_secret(name) for name in ("lemonstand_user_passwords", "ansible_become_pass", "vault_password", "password_hash", "x_secret")
    )
    assert not any(is_secret(name) for name in ("lemonstand_users", "directory_password_length", "passage", "ansible_host"))
    assert holds_secrets("a: 1\nlemonstand_user_passwords: {}\n") and not holds_secrets("a: 1\n")
    assert SECRET not in hush(f"could not determine a constructor for the tag '!{SECRET}'")


def test_plain_ansible_says_the_same_without_a_letter(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_user_passwords"][ALICE] = f"{SECRET}50%{{% off}} 2026 ok"
    folder = site(tmp_path, {}, tree)
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder), "preflight.yml"],
        cwd=PLAYBOOKS, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ANSIBLE_CONFIG": str(PLAYBOOKS.parent / "ansible.cfg")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"lemonstand_user_passwords.{ALICE} is a secret with braces in it" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_a_random_password_of_any_letters_comes_through_quoted(tmp_path: Path) -> None:
    """Generated: twelve passwords of all printable letters, written as told, are what the directory will be given."""
    dice = random.Random(5383)  # noqa: S311 - the same words every time
    words = ["".join(dice.choice(string.ascii_letters + string.digits + string.punctuation) for _ in range(20)) for _ in range(12)]
    for number, word in enumerate(words):
        tree = sound_site()
        del tree["all"]["lemonstand_user_passwords"]
        quoted = word.replace("'", "''")
        vault = f"lemonstand_user_passwords:\n  {ALICE}: !unsafe '{quoted}'\n  {BOB}: plain\n"
        folder = site(tmp_path / str(number), {"group_vars/all/vault.yml": vault}, tree)
        assert read(folder, PLAYBOOKS)["hosts"]["store"]["values"]["lemonstand_user_passwords"][ALICE] == word
