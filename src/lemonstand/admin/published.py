"""What DNS says of a site, asked where its relays ask for names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lemonstand.derived.dns import Record
from lemonstand.errors import LemonstandError
from lemonstand.remote.connections import connected
from lemonstand.remote.prober import Prober
from lemonstand.site import Site


@dataclass(frozen=True)
class Answer:
    """What DNS says of one record.

    Args:
        record: what should be there.
        found: what is there, of that name and kind.
        relay: who asked.
    """

    record: Record
    found: tuple[str, ...]
    relay: str

    @property
    def there(self) -> bool:
        """Whether the record is among what is there."""
        return self.record.value in self.found


def published(site: Site, wanted: Iterable[Record]) -> list[Answer]:
    """What DNS says, to each relay that has resolvers of its own.

    Raises:
        LemonstandError: no relay has one, or one gives no answer.
    """
    wanted = list(wanted)
    relays = [host.name for host in site.group("relays") if host.settings.dns_resolvers]
    if not relays:
        raise LemonstandError(
            "no relay can ask for names", "lemonstand_dns_resolvers", "name resolvers for relays, which need them for mail to others too"
        )
    answers = []
    with connected(site.inventory) as connections, Prober(connections) as prober:
        for relay in relays:
            found = prober.ask(relay, "lookup", questions=[(record.name, record.kind) for record in wanted])
            answers += [Answer(record, tuple(each["records"]), relay) for record, each in zip(wanted, found, strict=True)]
    return answers
