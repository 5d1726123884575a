"""Secrets of an inventory that Jinja or YAML would change: named without a letter of them, and before anything is templated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

SECRET = re.compile(r"(?:^|_)(?:pass|passwd|passwords?|passphrase|secrets?|password_hash)$")
"""Names of variables and keys whose values are never shown."""
BRACES = ("{{", "{%", "{#")


def is_secret(name: str) -> bool:
    """Whether a variable's or key's name says that its value is a secret."""
    return SECRET.search(name) is not None


def is_eaten(text: str) -> bool:
    """Whether Jinja would change a text that is meant as it stands. A template on purpose is nothing but expressions that name things."""
    if not any(brace in text for brace in BRACES):
        return False
    try:
        tree = Environment(autoescape=True).parse(text)
    except (TemplateSyntaxError, RecursionError):
        return True
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return True
        for part in output.nodes:
            names = isinstance(part, nodes.Name) or next(part.find_all(nodes.Name), None) is not None
            if isinstance(part, nodes.TemplateData) or not names:
                return True
    return not tree.body


def secret_faults(hosts: Any) -> list[str]:
    """Sentences about secrets in the hosts' variables as they stand in the files.

    Args:
        hosts: Ansible's `hostvars`; without `raw_get` (a plain mapping) values are taken as they are.
    """
    from ansible.template import is_trusted_as_template  # noqa: PLC0415 - the site model uses `is_eaten` without Ansible

    raw: Callable[[str], Mapping[str, Any]] = getattr(hosts, "raw_get", None) or hosts.get
    faults: dict[str, None] = {}
    for host in hosts:
        for name, value in raw(host).items():
            for at, each in _secrets(str(name), value, is_secret(str(name))):
                if isinstance(each, str) and is_trusted_as_template(each) and is_eaten(each):
                    faults[f"{at} has braces in it that Ansible takes for a template; write it as !unsafe: `NAME: !unsafe '…'`"] = None
                elif each is None or isinstance(each, int | float) or type(each).__name__ in {"date", "datetime"}:
                    faults[f"{at} is no text to YAML, but a number, a date, true, false or nothing; put it into quotes"] = None
    return list(faults)


def _secrets(at: str, value: Any, secret: bool) -> Iterator[tuple[str, Any]]:
    """The secrets below a value with the way to each."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets(f"{at}.{key}", item, secret or is_secret(str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for number, item in enumerate(value):
            yield from _secrets(f"{at}[{number}]", item, secret)
    elif secret:
        yield at, value


class FilterModule:
    """Announces the filter to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"lemonstand_secret_faults": secret_faults}
