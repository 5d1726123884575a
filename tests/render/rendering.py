"""Renders every file that roles would write for a site, with Ansible's own variables, precedence and templating, and no host at all."""

from __future__ import annotations

from pathlib import Path

from lemonstand.deploy.manifest import manifest

ROOT = Path(__file__).resolve().parents[2]
KEY_ID = "0123456789abcdef"
TICKET_KEYS = {
    KEY_ID: "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
}
GIVEN = {
    "mail_store_ticket_keys": TICKET_KEYS,
    "__lab_peer_made": {"accounts": {"peer-mail": {"uid": 999, "gid": 999}}},
}
"""What other tasks of a play would have set."""


def render(inventory: Path) -> dict[str, dict[str, str]]:
    """The text of every file by host and path.

    Args:
        inventory: a site's directory.
    """
    held = manifest(inventory, GIVEN)
    return {host: {entry.path: entry.text for entry in entries if entry.text is not None} for host, entries in held.items()}
