"""Removes the list of users that older versions took from the inventory, once Dovecot asks the new ones (docs/decisions/0041).

Python's standard library; the order is JSON in base64.
"""

import base64
import json
from pathlib import Path

OLD = Path("/etc/dovecot/users")


def main_encoded(packed: str) -> int:
    """Say what went, or in check mode would."""
    check = json.loads(base64.b64decode(packed))["check"]
    if OLD.exists():
        print(f"changed: {'would remove' if check else 'remove'} {OLD}")
        if not check:
            OLD.unlink()
    return 0
