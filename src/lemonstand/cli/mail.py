"""A small mail client to look with."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lemonstand.cli.base import Chosen, Group, main, site_options
from lemonstand.errors import InputError, LemonstandError
from lemonstand.site import Site


@main.group("mail", cls=Group)
def mail_group() -> None:
    """A small client to look with."""


@mail_group.command("send")
@site_options
@click.option("--from", "sender", required=True, metavar="ADDRESS", help="A user of the site, who logs in.")
@click.option("--to", "recipients", required=True, multiple=True, metavar="ADDRESS", help="A recipient; may be repeated.")
@click.option("--subject", required=True, metavar="TEXT")
@click.option("--body", default="", metavar="TEXT")
@click.option("--attach", "attachments", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE")
def mail_send(chosen: Chosen, *, sender: str, recipients: tuple[str, ...], subject: str, body: str, attachments: tuple[Path, ...]) -> None:
    """Submits a message: in a lab from the handset, else from here.

    The password comes from the lab's own, from LEMONSTAND_PASSWORD, or is asked for.
    """
    from lemonstand import mail  # noqa: PLC0415

    loaded = chosen.load()
    settings, frontend = loaded.settings, loaded.group("frontends")[0]
    met_at = [address for version in (4, 6) if (address := loaded.met_at(frontend, version)) is not None]
    known = [user.name for user in settings.users]
    if chosen.lab is not None and sender not in known:
        raise InputError(f"'{sender}' is no user of this lab", "--from", f"use one of {', '.join(known)}")
    message = mail.compose(sender, recipients, subject, body, attachments)
    order = mail.Order(
        server=settings.public_name,
        address=str(met_at[0]) if chosen.lab else "",
        ca=_roots(loaded.client_roots),
        user=sender,
        password=_password(loaded, chosen, sender),
        recipients=recipients,
        message=message,
    )
    click.echo(mail.send(order, chosen.lab))


@mail_group.command("watch")
@site_options
@click.option("--user", required=True, metavar="ADDRESS", help="A user of the site, who logs in.")
@click.option("--for", "seconds", type=click.IntRange(min=5, max=86400), default=600, show_default=True, metavar="SECONDS")
@click.option("--ipv6", is_flag=True, help="By IPv6.")
def mail_watch(chosen: Chosen, *, user: str, seconds: int, ipv6: bool) -> None:
    """Shows what a phone would see of a mailbox while it sleeps: pushes, the server's keep-alive lines, lost connections and new ones.

    In a lab from the handset; on a real site from its host in the group `handsets`. The password comes as with `mail send`.
    """
    from lemonstand.measure import watching  # noqa: PLC0415
    from lemonstand.outcomes import Invalid, Unanswered, Unmet  # noqa: PLC0415 - pytest and testinfra are slow to import

    site = chosen.load()
    known = [each.name for each in site.settings.users]
    if chosen.lab is not None and user not in known:
        raise InputError(f"'{user}' is no user of this lab", "--user", f"use one of {', '.join(known)}")
    password = _password(site, chosen, user)
    try:
        for line in watching(site, user, password, seconds, 6 if ipv6 else 4):
            click.echo(line)
    except Invalid as reason:
        raise LemonstandError(str(reason), user, "see `lemonstand verify -k reach`") from None
    except Unanswered as reason:
        raise LemonstandError(f"nobody can watch from outside: {reason}", "handsets", "name a host outside the site") from None
    except Unmet as fault:
        raise LemonstandError(fault.seen, user, "check the name and the password") from None


def _roots(path: Path | None) -> str:
    if path is None:
        return ""
    if not path.is_file():
        raise LemonstandError("the CA that clients trust is not there yet", str(path), "run `lemonstand apply` first")
    return path.read_text(encoding="ascii")


def _password(site: Site, chosen: Chosen, user: str) -> str:
    given = os.environb.get(b"LEMONSTAND_PASSWORD")
    if given is not None:
        try:
            return given.decode("utf-8")  # whatever the locale says
        except UnicodeDecodeError:
            raise InputError("the password is no UTF-8", "LEMONSTAND_PASSWORD", "give it in UTF-8") from None
    if chosen.lab is not None:  # on a real site the inventory's password is only the first one
        known = site.password_of(user)
        if known is not None:
            return known
    return str(click.prompt(f"Password of {user}", hide_input=True, err=True))
