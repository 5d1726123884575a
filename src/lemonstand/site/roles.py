"""Variables of roles in a site's folder, checked against the roles' own argument specifications."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lemonstand.errors import InputError
from lemonstand.paths import data_dir
from lemonstand.policy.text import read_shipped
from lemonstand.site.fields import place_of, suggest
from lemonstand.site.raw import RawHost

Options = Mapping[str, Mapping[str, Any]]
SPECIFICATION = Path("meta", "argument_specs.yml")


@cache
def role_options() -> Mapping[str, Options]:
    """The options of every role: {role: {variable: specification}}.

    Raises:
        LemonstandError: a specification can't be read.
    """
    found: dict[str, Options] = {}
    for role in sorted(path for path in data_dir("roles").iterdir() if path.is_dir()):
        found[role.name] = specification(role).get("options", {}) if (role / SPECIFICATION).is_file() else {}
    return found


def specification(role: Path) -> Mapping[str, Any]:
    """What a role says of itself and its variables (`meta/argument_specs.yml`, entry point `main`).

    Args:
        role: its folder.

    Raises:
        LemonstandError: it can't be read.
    """
    return entry_points(role)["main"]


def entry_points(role: Path) -> Mapping[str, Mapping[str, Any]]:
    """What a role says of each way to use it: `main`, and each file of tasks that is one of its own (`tasks_from`).

    Args:
        role: its folder.

    Raises:
        LemonstandError: it can't be read.
    """
    found: Mapping[str, Mapping[str, Any]] = read_shipped(
        role / SPECIFICATION,
        "the specification",
        lambda text: {"main": text["argument_specs"]["main"], **text["argument_specs"]},
    )
    return found


def role_of(variable: str) -> str | None:
    """The role a variable belongs to by its prefix (the longest that fits)."""
    fitting = [role for role in role_options() if variable.startswith(f"{role}_")]
    return max(fitting, key=len) if fitting else None


def check_role_variable(host: RawHost, variable: str) -> Iterator[InputError]:
    """Yields what a role's specification has against a variable of the inventory."""
    from ansible.module_utils.common.arg_spec import ArgumentSpecValidator  # noqa: PLC0415 - slow, and needed only if roles are tuned

    role = role_of(variable)
    assert role is not None  # noqa: S101 - the caller asked role_of
    options = role_options()[role]
    if not options:
        return
    if variable not in options:
        yield InputError(
            f"the role {role} has no variable '{variable}'",
            place_of(host, variable),
            suggest(variable, options, f"remove it; roles/{role}/meta/argument_specs.yml lists them"),
        )
        return
    if variable in host.faulty:
        return  # it may well lean on facts, which nobody has yet
    specification = {variable: _validator_form(options[variable])}
    result = ArgumentSpecValidator(specification).validate({variable: host.values[variable]})
    for message in result.error_messages:
        yield InputError(f"{variable}: {message}", place_of(host, variable), f"see roles/{role}/meta/argument_specs.yml")


def _validator_form(option: Mapping[str, Any]) -> dict[str, Any]:
    """An option as the validator wants it: no text, nothing demanded of a variable that was left out."""
    form = {key: value for key, value in option.items() if key not in {"description", "version_added", "required", "default"}}
    if "options" in form:
        form["options"] = {
            name: {**_validator_form(inner), "required": bool(inner.get("required"))} for name, inner in form["options"].items()
        }
    return form
