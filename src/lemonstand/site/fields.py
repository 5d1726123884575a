"""Checks values one by one against the model, so that one fault never hides another, and words the faults."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from lemonstand.errors import InputError
from lemonstand.site.model import PREFIX
from lemonstand.site.raw import RawHost

HIDDEN = ("user_passwords", "password_hash")
"""Variables whose values are never shown."""


def suggest(name: str, candidates: Iterable[str], otherwise: str) -> str:
    """A remedy for an unknown name: the candidate that looks most like it, and what to do if it isn't meant."""
    found = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f"did you mean '{found[0]}'? otherwise {otherwise}" if found else otherwise


def place_of(host: RawHost, *path: str | int) -> str:
    """Where a value stands: file and line, then the key, for instance `…/site.yml:7 (lemonstand_users[0].name)`."""
    steps = tuple(str(step) for step in path)
    origin = host.origin(steps) or f"host {host.name}"
    return f"{origin} ({dotted(*path)})"


def dotted(*path: str | int) -> str:
    """A way into a value as users write it: `lemonstand_users[0].name`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def check_fields(model: type[BaseModel], host: RawHost, folder: str) -> tuple[dict[str, Any], list[InputError]]:
    """Checks each field of a model against a host's variables.

    Args:
        model: its fields are variable names without `lemonstand_`.
        host: the host whose variables are taken.
        folder: named for variables that are missing.

    Returns:
        The values of all sound fields (defaults where nothing is set), and the faults of the others.
    """
    sound: dict[str, Any] = {}
    faults: list[InputError] = []
    for name, info in model.model_fields.items():
        variable = PREFIX + name
        if variable in host.faulty:
            continue  # told already
        if variable not in host.values:
            if info.is_required():
                faults.append(InputError(f"{variable} is not set on host {host.name}", folder, f"set it: {info.description}"))
            else:
                sound[name] = _adapter(model, name).validate_python(info.default)
            continue
        try:
            sound[name] = _adapter(model, name).validate_python(host.values[variable])
        except ValidationError as error:
            faults += [_fault(detail, host, variable, str(info.description)) for detail in error.errors(include_url=False)]
    return sound, faults


@cache
def _adapter(model: type[BaseModel], name: str) -> TypeAdapter[Any]:
    info = model.model_fields[name]
    form: Any = Annotated[info.annotation, info]
    return TypeAdapter(form)


def _fault(detail: ErrorDetails, host: RawHost, variable: str, meaning: str) -> InputError:
    # pydantic puts the tag of a union and its own markers between the steps; only real keys lead somewhere.
    path = _real_path(host.values.get(variable), detail["loc"])
    where = place_of(host, variable, *path)
    key = dotted(variable, *path)
    kind = detail["type"]
    if kind == "extra_forbidden":
        return InputError(f"{key}: no such key", where, suggest(str(path[-1]), _siblings(meaning), f"give {meaning}"))
    if kind == "missing":
        missing = str(detail["loc"][-1])
        return InputError(f"{key}: '{missing}' is missing", where, f"add '{missing}'; give {meaning}")
    shown = "" if any(word in key for word in HIDDEN) else f" (it is {detail['input']!r})"
    message = detail["msg"].removeprefix("Value error, ")
    return InputError(f"{key}: {message[0].lower()}{message[1:]}{'' if kind == 'value_error' else shown[:80]}", where, f"give {meaning}")


def _real_path(value: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    path: list[int | str] = []
    for step in location:
        known = step in value if isinstance(value, Mapping) else isinstance(value, list) and isinstance(step, int) and step < len(value)
        if known:
            value = value[step]
            path.append(step)
    return tuple(path)


def _siblings(meaning: str) -> list[str]:
    return [word.strip("{}[],:;()") for word in meaning.split()]
