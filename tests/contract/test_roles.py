"""What a role says of itself agrees: its specification, its defaults, its documentation and its files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def defaults_of(role: str) -> dict[str, Any]:
    """The variables a role sets by default."""
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return found


def options_of(role: str, entry_point: str = "") -> dict[str, dict[str, Any]]:
    """The variables a role's specification names, for all its entry points or one."""
    path = ROOT / "roles" / role / "meta" / "argument_specs.yml"
    specifications = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
    found: dict[str, dict[str, Any]] = {}
    for name in [entry_point] if entry_point else specifications:
        found |= specifications[name].get("options") or {}
    return found


def nested(options: dict[str, dict[str, Any]], stem: str = "") -> dict[str, dict[str, Any]]:
    """Options and their own options, by dotted name."""
    found = {}
    for name, option in options.items():
        found[stem + name] = option
        found |= nested(option.get("options", {}), f"{stem}{name}.")
    return found


def form(option: dict[str, Any]) -> dict[str, Any]:
    """An option as the validator wants it."""
    kept = {key: value for key, value in option.items() if key not in {"description", "default", "options"}}
    if "options" in option:
        kept["options"] = {name: form(inner) for name, inner in option["options"].items()}
    return kept


def test_the_record_of_the_house_names_all_roles() -> None:
    record = (ROOT / "docs" / "decisions" / "0001-shape-of-the-house.md").read_text(encoding="utf-8")
    line = next(line for line in record.splitlines() if line.startswith("Roles: "))
    assert sorted(re.findall(r"\b[a-z_]+\b", " ".join(re.findall(r"`([^`]+)`", line)))) == ROLES


@pytest.mark.parametrize("role", ROLES)
def test_specification_and_defaults_have_the_same_variables(role: str) -> None:
    options, defaults = options_of(role), defaults_of(role)
    demanded = {name for name, option in options.items() if option.get("required")}
    assert set(options) - demanded == set(defaults) - demanded, "each variable needs a default or must be demanded"
    assert set(defaults) <= set(options)


@pytest.mark.parametrize("role", ROLES)
def test_specification_repeats_the_defaults_truly(role: str) -> None:
    defaults = defaults_of(role)
    stated = {name: option["default"] for name, option in options_of(role).items() if "default" in option}
    assert stated == {name: defaults[name] for name in stated}


@pytest.mark.parametrize("role", ROLES)
def test_defaults_satisfy_the_specification(role: str) -> None:
    options = options_of(role)
    # What holds a template has its value only in a play, and what is demanded has its default for editors only.
    fixed = {
        name: value for name, value in defaults_of(role).items() if "{{" not in yaml.safe_dump(value) and not options[name].get("required")
    }
    result = ArgumentSpecValidator({name: form(options[name]) for name in fixed}).validate(fixed)
    assert result.error_messages == []


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_named_after_its_role_and_documented(role: str) -> None:
    options = options_of(role)
    assert all(name.startswith(f"{role}_") for name in options)
    for name, option in nested(options).items():
        assert option.get("type"), f"{name} has no type"
        assert len(str(option.get("description", ""))) >= 5, f"{name} has no description"


@pytest.mark.parametrize("role", ROLES)
def test_role_has_its_stages_and_a_short_page(role: str) -> None:
    folder = ROOT / "roles" / role
    tasks = {path.name for path in (folder / "tasks").iterdir()}
    assert {"main.yml", "install.yml", "configure.yml", "activate.yml"} <= tasks
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert 5 <= len(readme.splitlines()) <= 60, "a page is a screen"


@pytest.mark.parametrize("role", ROLES)
def test_role_has_an_example_that_is_played(role: str) -> None:
    (play,) = yaml.safe_load((ROOT / "roles" / role / "examples" / "play.yml").read_text(encoding="utf-8"))
    assert [entry["role"] for entry in play["roles"]] == [role]
    options, given = options_of(role, "main"), set(play["roles"][0].get("vars", {}))
    assert given <= set(options)
    assert {name for name, option in options.items() if option.get("required")} <= given, "it would not run"
    scenario = ROOT / "molecule" / role
    assert yaml.safe_load((scenario / "molecule.yml").read_text(encoding="utf-8"))["provisioner"]["ansible_args"][:1] == ["--limit"]
    assert (scenario / "verify.yml").is_file()


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks/tasks/activate").glob("*.yml")), ids=lambda path: path.stem)
def test_whoever_reads_certificates_is_told_of_new_ones(path: Path) -> None:
    """What is renewed by itself reaches every service that an apply would tell."""
    (told,) = yaml.safe_load((ROOT / "playbooks/tasks/read_certificates.yml").read_text(encoding="utf-8"))
    roles = [role for task in yaml.safe_load(path.read_text(encoding="utf-8")) for role in _activated(task)]
    readers = [role for role in roles if re.search(rf"\{{\{{ {role}_\w*certificate\w* \}}\}}", _variables_of(role))]
    assert sorted(told["vars"]["__readers"].get(path.stem, [])) == sorted(readers)


def _activated(task: dict[str, Any]) -> list[str]:
    named = [said["name"] for key, said in task.items() if key.endswith("_role")]
    wanted = task.get("lemonstand.lemonstand.activate", {}).get("roles", [])
    return named + (re.findall(r"[a-z_]+", wanted) if isinstance(wanted, str) else wanted)


def _variables_of(role: str) -> str:
    path = ROOT / "roles" / role / "vars" / "main.yml"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
