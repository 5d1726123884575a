"""Puts the evidence together: results, what they say about controls, the site, and what it was measured against."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lemonstand
from lemonstand.derived.deviations import Accepted, acceptance, accepted, deviations, waivers_of
from lemonstand.evidence.identity import code, inventory_hash
from lemonstand.evidence.model import SCHEMA_VERSION, Awaited, Circumstances, Kind, Result, Standing, counts, judge, superfluous
from lemonstand.policy.controls import Controls
from lemonstand.policy.invariants import load_invariants
from lemonstand.policy.waivers import GivenWaiver, given

if TYPE_CHECKING:
    from lemonstand.site import Site


@dataclass
class Session:
    """One run of checks.

    Args:
        kind: what was asked for.
        selection: which checks, in the schema's form.
        inventory: the site's.
        started, ended: UTC.
        complete: whether it came to its end.
        site: the model, once it is read.
        hosts: what was read of each.
        mutants: the deliberate breaks, each with what came of it: the form of the schema.
    """

    kind: Kind
    selection: Mapping[str, Any]
    inventory: str | None = None
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    ended: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    complete: bool = True
    site: Site | None = None
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    mutants: Sequence[Mapping[str, Any]] = ()

    @property
    def partial(self) -> bool:
        """Whether something was selected."""
        return any(self.selection.values())


def document(
    catalogue: Controls,
    session: Session,
    results: Sequence[Result],
    awaited: Mapping[str, Collection[Awaited]],
    *,
    previous: Mapping[str, Any] | None = None,
    dropped: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The evidence, in the schema's form.

    Args:
        catalogue: all controls.
        session: the run that was just made.
        results: its results, and those of earlier runs that stand.
        awaited: control to what would answer it further.
        previous: the document the earlier results are from.
        dropped: what of it was left out.
    """
    site = session.site
    waivers = waivers_of(site) if site else given(())
    packages = {name: host.get("packages", {}) for name, host in session.hosts.items()}
    groups = [group for host in site.hosts.values() for group in host.groups] if site else ["edges"]
    around = Circumstances(groups, waivers, session.ended.date(), packages, awaited)
    standings = judge(catalogue, results, around)
    return {
        "schema": SCHEMA_VERSION,
        "site": site.settings.site_name if site else "",
        "lemonstand": lemonstand.__version__,
        "code": dict(code()),
        "inventory": inventory_hash(Path(session.inventory)) if session.inventory else "0" * 64,
        "started": stamp(session.started),
        "ended": stamp(session.ended),
        "complete": session.complete,
        "runs": _runs(session, results, previous),
        "dropped": [dict(each) for each in dropped],
        "hosts": _hosts(site, session.hosts),
        "policy": policy_of(site),
        "assessment": site.settings.assessment.model_dump() if site else {"owner": "", "assessor": "", "scope": ""},
        "results": [result.plain() for result in results],
        "controls": [standing.plain(_breaking(session.mutants, standing.control.id)) for standing in standings],
        "waivers": [_waiver(each, around, standings, acceptance(site, each) if site else None) for each in waivers],
        "deviations": _deviations(site),
        "mutants": [dict(each) for each in session.mutants],
        "counts": counts(standings),
    }


def stamp(moment: dt.datetime) -> str:
    """A time as evidence writes it."""
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _runs(session: Session, results: Sequence[Result], previous: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    this = {
        "kind": session.kind,
        "started": stamp(session.started),
        "ended": stamp(session.ended),
        "complete": session.complete,
        "selection": dict(session.selection),
        "results": 0,
    }
    runs = [this, *(dict(run) for run in (previous or {}).get("runs", ()))]
    for run in runs:
        run["results"] = sum(_within(result, run) for result in results)
    return [this, *(run for run in runs[1:] if run["results"])]


def _within(result: Result, run: Mapping[str, Any]) -> bool:
    return result.run == run["kind"] and str(run["started"]) <= result.time <= str(run["ended"])


def _hosts(site: Site | None, seen: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if site is None:
        return {name: {"groups": [], "zones": {}, **host} for name, host in seen.items()}
    return {
        host.name: {
            "groups": list(host.groups),
            "zones": {zone: [str(address) for address in leg.addresses] for zone, leg in host.interfaces.items()},
            **seen.get(host.name, {}),
        }
        for host in site.hosts.values()
    }


def policy_of(site: Site | None) -> dict[str, Any]:
    """What a site means to be: its profiles, zones, flows, timers and their relations, and the devices of others on the path."""
    if site is None:
        return {"profile": {}, "zones": {}, "flows": [], "timers": {}, "relations": [], "middleboxes": []}
    settings = site.settings
    deviations = {relation: deviation.reason for relation, deviation in site.timers.deviations(settings.timer_profile)}
    return {
        "profile": {"tls": settings.tls_profile, "timers": settings.timer_profile},
        "zones": {name: [str(net) for net in zone.networks] for name, zone in settings.zones.items()},
        "flows": [
            {
                "name": flow.name,
                "from": flow.source,
                "to": flow.destination,
                "protocol": flow.protocol,
                "ports": list(flow.ports),
                "published": flow.publish,
                "reason": flow.reason,
                "controls": list(flow.controls),
                "origin": "site" if flow.name in site.own_flows else "lemonstand",
            }
            for flow in site.active_flows
        ],
        "invariants": [{"id": each.id, "title": each.title, "why": each.why} for each in load_invariants()],
        "timers": dict(site.timers_in_force),
        "relations": [
            relation.model_dump(include={"left", "op", "right", "reason", "control"}) | {"deviation": deviations.get(relation, "")}
            for relation in site.timers.relations_of(settings.timer_profile)
        ],
        "middleboxes": [
            {"name": box.name, "between": list(box.between), "established": box.established, "transitory": box.transitory}
            for box in settings.middleboxes or ()
        ],
    }


def _word(given_by: Accepted | None) -> dict[str, str] | None:
    return {"by": given_by.by, "date": given_by.date.isoformat()} if given_by else None


def _deviations(site: Site | None) -> list[dict[str, Any]]:
    """What the site's timer profile does less; what devices do stands with the waivers."""
    return [
        {
            "id": each.id,
            "control": each.control,
            "what": each.what,
            "reason": each.reason,
            "accepted": _word(accepted(site, each.id)) if site else None,
        }
        for each in (deviations(site) if site else ())
        if each.waiver is None
    ]


def _waiver(waiver: GivenWaiver, around: Circumstances, standings: Sequence[Standing], word: Accepted | None) -> dict[str, Any]:
    return {
        "id": waiver.id,
        "title": waiver.title,
        "controls": list(waiver.controls),
        "part": waiver.part,
        "reason": waiver.reason,
        "owner": waiver.owner,
        "date": waiver.date.isoformat(),
        "expires": waiver.expires.isoformat(),
        "origin": waiver.origin,
        "ended": waiver.ended(around.today, around.packages),
        "superfluous": superfluous(waiver, standings),
        "accepted": _word(word),
    }


def _breaking(mutants: Sequence[Mapping[str, Any]], control: str) -> list[str]:
    return [mutant["name"] for mutant in mutants if control in mutant["controls"]]
