"""A smarthost: named by one variable, mail leaves by it alone; a relay that is less careful is noticed; without it all is as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Command

pytestmark = pytest.mark.long

CHECKS = "smarthost or outgoing or test_every_leg_has_tls or test_every_flow_gets_through or test_nothing_gets_through"
LOOSE = "sed -i 's/^smtp_tls_security_level = secure/smtp_tls_security_level = may/' /etc/postfix/main.cf && postfix reload"


@pytest.fixture
def smarthost(deployed: str, lemonstand: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The lab with its peer as smarthost; relays that send by themselves again afterwards."""
    monkeypatch.setenv("LEMONSTAND_LAB_SMARTHOST", "peer")
    lemonstand("apply", "--lab", deployed)
    yield deployed
    monkeypatch.delenv("LEMONSTAND_LAB_SMARTHOST")
    lemonstand("apply", "--lab", deployed)
    lemonstand("verify", "--lab", deployed, "-k", CHECKS)


def test_mail_leaves_by_the_smarthost_alone(
    smarthost: str, lemonstand: Command, *, on: Callable[..., str], last_run: Callable[[], dict[str, Any]]
) -> None:
    lemonstand("verify", "--lab", smarthost, "--disruptive", "-k", CHECKS)
    lemonstand("apply", "--lab", smarthost)
    assert last_run()["changes"] == []
    assert "ip4:" in lemonstand("dns", "--lab", smarthost).stdout
    on("relay", LOOSE)
    shown = lemonstand("verify", "--lab", smarthost, "-k", "test_mail_to_others_has_one_way", code=1).stdout
    assert "mail to others may leave by another way" in shown
    lemonstand("apply", "--lab", smarthost, "--limit", "relay")
    lemonstand("verify", "--lab", smarthost, "-k", "test_mail_to_others_has_one_way")
