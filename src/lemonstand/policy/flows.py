"""Flows: who may talk to whom, why, and for which control. The only source of reachability (`playbooks/flows.yml`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir
from lemonstand.policy.kinds import load_kinds
from lemonstand.policy.text import read_shipped

ZONES = load_kinds().zones
GROUPS = load_kinds().groups
ENDPOINTS = load_kinds().endpoints

Port = Annotated[StrictInt, Field(ge=1, le=65535)]


def several(members: Callable[[str], Sized]) -> dict[str, bool]:
    """The conditions of flows that depend on how many hosts of a kind there are.

    Args:
        members: the hosts of a group.
    """
    edges = len(members("edges"))
    return {
        "no_edge": edges == 0,
        "several_edges": edges > 1,
        # It is the edge that leads new connections to one of them.
        "several_frontends": edges > 0 and len(members("frontends")) > 1,
        "several_relays": edges > 0 and len(members("relays")) > 1,
        "several_auths": len(members("auths")) > 1,
        "several_stores": len(members("stores")) > 1,
    }


class Flow(BaseModel):
    """One allowed path."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str = Field(description="a name of its own", pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    source: str = Field(
        alias="from",
        description="who opens the connection: a zone, a group of hosts, controllers, resolvers, ntp, or a service (`lemonstand_services`)",
    )
    destination: str = Field(alias="to", description="who answers: as `from`")
    protocol: Literal["tcp", "udp", "vrrp"] = Field(description="the transport, or VRRP, which has no ports")
    ports: tuple[Port, ...] = Field(description="ports of the side that answers")
    by: tuple[str, ...] = Field((), description="zones: between the legs of both ends in these alone; none: whichever legs they have")
    publish: StrictBool = Field(False, description="whether the edge translates its public IPv4 address to the host that answers")
    when: Literal[
        "always",
        "implicit_tls",
        "managesieve",
        "self_service",
        "acme",
        "no_edge",
        "backup",
        "smarthost",
        "no_smarthost",
        "mirror",
        "mirror_dmz",
        "directory",
        "several_edges",
        "several_frontends",
        "several_auths",
        "several_stores",
        "several_relays",
    ] = Field("always", description="the condition under which it is open")
    per_source: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="the most connections at a time from one address; the host that answers drops what would be one more"
    )
    sometimes: StrictBool = Field(False, description="whether something listens there only now and then")
    reason: str = Field(description="why it is open, in a sentence", min_length=1)
    controls: tuple[str, ...] = Field((), description="the controls that ask for it")

    @model_validator(mode="after")
    def _fits_its_protocol(self) -> Flow:
        if bool(self.ports) != (self.protocol != "vrrp"):
            raise ValueError(f"flow '{self.name}': {'VRRP has no ports' if self.ports else 'it has no ports'}")
        unknown = set(self.by) - set(ZONES)
        if unknown:
            raise ValueError(f"flow '{self.name}': no zones of a site: {', '.join(sorted(unknown))}")
        return self

    @property
    def is_for_clients(self) -> bool:
        """Whether mail clients outside connect by it: what `lemonstand service close` closes."""
        return self.source == "internet" and self.destination == "frontends" and self.protocol == "tcp"

    def holds(self, conditions: Mapping[str, bool]) -> bool:
        """Whether the flow is used: its condition, by name, is one that holds."""
        return self.when == "always" or conditions[self.when]


class Flows(BaseModel):
    """All flows that ship, by unique name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flows: tuple[Flow, ...]

    def names(self) -> tuple[str, ...]:
        """The names of all flows."""
        return tuple(flow.name for flow in self.flows)


def load_flows(path: Path | None = None) -> Flows:
    """Reads `flows.yml`.

    Args:
        path: another file; default: the shipped one.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    path = path or data_dir("playbooks") / "flows.yml"
    flows = read_shipped(path, "flows", Flows.model_validate)
    names = flows.names()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LemonstandError(f"flows share a name: {', '.join(twice)}", str(path), "give each flow a name of its own")
    return flows
