"""The picture of a site: zones, hosts, and the ways that flows allow, as shapes with coordinates. The template only paints them.

The border firewall is a board with one lane for each way; a way leaves its host at a place (slot) of its own, runs along its lane and ends
at a slot of its own. So lines may cross and never share a stretch, and names stand beside the board, where no line runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lemonstand.policy.flows import GROUPS, ZONES

Evidence = Mapping[str, Any]

Kind = Literal["client", "inner", "outward", "management"]
Side = Literal["top", "bottom", "board", "side"]
Point = tuple[float, float]

KINDS: Mapping[Kind, str] = {
    "client": "from outside: clients and other mail hosts",
    "inner": "between hosts of the site",
    "outward": "from the site to the rest of the world",
    "management": "administration",
}
"""What a way is for, with the words of the legend."""
WHAT = {
    "internet": "anyone outside",
    "resolvers": "name servers",
    "ntp": "time servers",
    "frontends": "login proxy",
    "auths": "directory, ticket issuer",
    "stores": "mailboxes",
    "relays": "mail relay",
    "controllers": "controller",
}
GRID = 12
"""All vertical stretches from below stand on multiples of this, those from above half way between: none can lie on another."""
GUTTER = 300
"""Least width of the column with the names of ways."""
LANE, TOP_HEIGHT, LINE = 24, 58, 13
MOST_HOSTS = 4
LETTER = 5.9
"""Width of a letter of an address as drawn: the widest of the usual fonts."""
WIDEST = 240
WORD, FIGURE, BESIDE = 6.6, 7.6, 66
"""Widths in the column of names: of a letter of a way's ends, of a figure of its ports, and of what stands beside both."""


@dataclass
class Box:
    """A group of hosts in a zone, or an endpoint that is no host of ours.

    Args:
        name: the endpoint.
        title: what it is, in words.
        lines: names and addresses, as drawn: (text, whether it is a name).
        full: all of them, for whoever can't see the picture.
    """

    name: str
    side: Side
    title: str
    lines: list[tuple[str, bool]]
    full: str
    x: int = 0
    y: int = 0
    width: int = 0
    height: int = 0

    @property
    def middle(self) -> float:
        """Its horizontal middle."""
        return self.x + self.width / 2


@dataclass
class Zone:
    """A coloured area with a name, which stands at the height `label`."""

    name: str
    networks: str
    x: int
    y: int
    width: int
    height: int
    label: int = 0


@dataclass
class Way:
    """All flows from one endpoint to another, as one line.

    Args:
        number: its place from the top, from 1.
        points: the corners of the line; several lines where it leads to every host.
        heads: where arrowheads point: (x, y, direction: up, down, left).
        dots: where it begins or ends on the board itself.
        y: of its lane, where its name stands.
    """

    number: int
    source: str
    destination: str
    kind: Kind
    flows: tuple[Mapping[str, Any], ...]
    points: list[list[Point]] = field(default_factory=list)
    heads: list[tuple[float, float, str]] = field(default_factory=list)
    dots: list[Point] = field(default_factory=list)
    y: float = 0

    @property
    def ports(self) -> str:
        """Its ports: `143, 587`, with `udp` where it is not TCP alone."""
        parts = []
        for protocol in ("tcp", "udp"):
            ports = list(dict.fromkeys(port for flow in self.flows if flow["protocol"] == protocol for port in flow["ports"]))
            if ports:
                parts.append(("udp " if protocol == "udp" else "") + ", ".join(map(str, ports)))
        return " · ".join(parts)

    @property
    def names(self) -> str:
        """The names of its flows."""
        return ", ".join(flow["name"] for flow in self.flows)

    @property
    def left(self) -> float:
        """Where its line first meets its lane, from the left."""
        return min(x for points in self.points for x, y in points if y == self.y)

    @property
    def paths(self) -> list[str]:
        """Its lines as SVG path data, with round corners."""
        return [_path(points) for points in self.points]

    @property
    def heads_data(self) -> list[str]:
        """Its arrowheads as SVG path data."""
        return [_head(*head) for head in self.heads]


@dataclass
class Picture:
    """Everything that is drawn, in the units of the view box."""

    width: int
    height: int
    board: Zone
    managed: bool
    zones: list[Zone]
    boxes: list[Box]
    ways: list[Way]
    left_out: tuple[str, ...]

    @property
    def kinds(self) -> dict[Kind, str]:
        """The kinds of ways there are, for the legend."""
        present = {way.kind for way in self.ways}
        return {kind: words for kind, words in KINDS.items() if kind in present}


def draw(evidence: Evidence) -> Picture:
    """Lays out zones, hosts and flows as the evidence names them.

    Args:
        evidence: of schema 2.
    """
    site = _Site(evidence)
    ways, left_out = _ways(site)
    used = {name for way in ways for name in (way.source, way.destination)}
    top = [_outer_box(site, name) for name in ("internet", "resolvers", "ntp") if name in used or name == "internet"]
    inner = {zone: _zone_boxes(site, zone, used) for zone in ("dmz", "auth", "store") if zone in site.zones}
    layout = _Layout(site, top, inner, _side_box(), *_sorted_ways(ways, inner))
    for number, way in enumerate(layout.ways, start=1):
        way.number = number
    layout.place_across()
    layout.place_down()
    boxes = {box.name: box for box in layout.boxes}
    _route_across(boxes, layout.across)
    _route_below(boxes, layout)
    return Picture(
        width=layout.width,
        height=layout.strip.y + layout.strip.height + 4,
        board=layout.board,
        managed=bool(site.group("edges")),
        zones=[layout.outside, *layout.zones, layout.strip],
        boxes=layout.boxes,
        ways=layout.ways,
        left_out=left_out,
    )


@dataclass(frozen=True)
class _Site:
    """What the picture needs of the evidence."""

    evidence: Evidence

    @property
    def zones(self) -> Mapping[str, Sequence[str]]:
        """Networks by zone."""
        found: Mapping[str, Sequence[str]] = self.evidence["policy"]["zones"]
        return found

    @property
    def hosts(self) -> Mapping[str, Mapping[str, Any]]:
        """Groups and addresses by name."""
        found: Mapping[str, Mapping[str, Any]] = self.evidence["hosts"]
        return found

    def group(self, name: str) -> list[str]:
        """The names of a group's hosts."""
        return [host for host, said in self.hosts.items() if name in said["groups"]]

    def home(self, host: str) -> str:
        """The zone a host is drawn in: where it stands for others, not where it is administered."""
        zones = self.hosts[host]["zones"]
        return next((zone for zone in ZONES if zone in zones and zone not in {"internet", "management"}), "management")


@dataclass
class _Layout:
    """Boxes, zones and lanes while they are placed: first from left to right, then from top to bottom."""

    site: _Site
    top: list[Box]
    inner: dict[str, list[Box]]
    side: Box
    across: list[Way]
    within: list[Way]
    fans: list[Way]
    zones: list[Zone] = field(default_factory=list)
    width: int = 0
    gutter: int = GUTTER
    gap: int = 0
    """Left end of the free room between the zones and who administers."""

    def __post_init__(self) -> None:
        self.outside, self.board = self._zone("internet"), Zone("edges", "", 0, 0, 0, 0)
        self.strip = self._zone("management")

    @property
    def ways(self) -> list[Way]:
        """All of them, from the top."""
        return [*self.across, *self.within, *self.fans]

    @property
    def boxes(self) -> list[Box]:
        """All of them."""
        return [*self.top, *(box for members in self.inner.values() for box in members), self.side]

    def place_across(self) -> None:
        """Zones side by side below the board; the outside above it, as wide as the first zone; who administers at the right."""
        names = (BESIDE + WORD * len(f"{way.source} → {way.destination}") + FIGURE * len(way.ports) for way in self.ways)
        self.gutter = _up(max([GUTTER, *map(int, names)]))
        for box in self.boxes:
            ends = sum(box.name in _ends(way) for way in self.ways)
            box.width = _up(max(box.width, (ends + 3) * GRID))
        x = self.gutter + GRID
        for name, members in self.inner.items():
            zone = self._zone(name)
            zone.x = x
            x = _side_by_side(members, x + GRID, GRID)
            zone.width = x - zone.x
            self.zones.append(zone)
            x += GRID
        self.gap = x - GRID
        self.side.x = x + GRID
        self.top[0].width = max([self.top[0].width, *(zone.width - 2 * GRID for zone in self.zones[:1])])
        self.width = _up(max(self.side.x + self.side.width + 2 * GRID, _side_by_side(self.top, self.gutter + 2 * GRID, 2 * GRID)))
        for wide in (self.outside, self.board, self.strip):
            wide.x, wide.width = self.gutter + GRID, self.width - self.gutter - 2 * GRID

    def place_down(self) -> None:
        """Outside, board, zones, administration."""
        tall = max(len(box.lines) for box in self.top)
        for box in self.top:
            box.y, box.height = 28, TOP_HEIGHT - 2 * LINE + tall * LINE
        self.outside.y, self.outside.height, self.outside.label = 4, 36 + self.top[0].height, 20
        self.board.y = self.outside.y + self.outside.height + 20
        self.board.height = 36 + max(1, len(self.across)) * LANE
        self.board.label = self.board.y + 20
        _in_lanes(self.across, self.board.y + 40)

        y = self.board.y + self.board.height + 24
        lines = max((len(box.lines) for members in self.inner.values() for box in members), default=1)
        below = y + 48 + lines * LINE
        end = below + 24 + (6 + len(self.within) * LANE if self.within else 0)
        for zone in self.zones:
            zone.y, zone.height, zone.label = y, end - y, end - 8
        for members in self.inner.values():
            for box in members:
                box.y, box.height = y + 12, below - y - 12
        _in_lanes(self.within, below + 20)

        self.strip.y = end + 16
        self.side.y, self.side.height = self.strip.y + 12, 34 + len(self.side.lines) * LINE
        _in_lanes(self.fans, self.side.y + 22)
        self.strip.height = max(self.side.height, 26 + len(self.fans) * LANE) + 24
        self.strip.label = self.strip.y + self.strip.height - 9

    def _zone(self, name: str) -> Zone:
        return Zone(name, " · ".join(self.site.zones.get(name, [])), 0, 0, 0, 0)


def _side_by_side(boxes: Sequence[Box], x: int, apart: int) -> int:
    """Puts boxes in a row from x on; returns where the next one would stand."""
    for box in boxes:
        box.x = x
        x += box.width + apart
    return x


def _in_lanes(ways: Sequence[Way], y: int) -> None:
    """Gives each way its lane, from y down."""
    for index, way in enumerate(ways):
        way.y = y + index * LANE


def _ways(site: _Site) -> tuple[list[Way], tuple[str, ...]]:
    """The flows bundled by their ends, and the names of those without a host at one end."""
    bundles: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    left_out = []
    for flow in site.evidence["policy"]["flows"]:
        ends = (flow["from"], flow["to"])
        lacking = [name for name in ends if name in GROUPS and not site.group(name)]
        lacking += [name for name in ends if name in {"dmz", "auth", "store"} and name not in site.zones]
        if lacking or ends == ("edges", "edges"):
            left_out.append(flow["name"])
            continue
        bundles.setdefault(ends, []).append(flow)
    ways = [Way(0, source, destination, _kind(source, destination), tuple(flows)) for (source, destination), flows in bundles.items()]
    return ways, tuple(left_out)


def _kind(source: str, destination: str) -> Kind:
    if source in {"controllers", "management"} or destination == "management":
        return "management"
    if source == "internet":
        return "client"
    return "outward" if destination in {"internet", "resolvers", "ntp"} else "inner"


def _sorted_ways(ways: Sequence[Way], inner: Mapping[str, Sequence[Box]]) -> tuple[list[Way], list[Way], list[Way]]:
    """Ways across the board, ways within a zone, and ways from who administers to every host."""
    homes = {box.name: zone for zone, found in inner.items() for box in found}
    fans = [way for way in ways if way.destination == "management" and way.source in {"controllers", "management"}]
    within = [way for way in ways if way.source in homes and homes[way.source] == homes.get(way.destination)]
    across = [way for way in ways if way not in fans and way not in within]
    order = list(KINDS)
    # Short hops to the board itself (time) come last, so that the long lines stay together.
    across.sort(key=lambda way: ("edges" in (way.source, way.destination), order.index(way.kind)))
    return across, within, fans


def _route_across(boxes: Mapping[str, Box], across: Sequence[Way]) -> None:
    """Draws the ways across the board: from slot to lane to slot."""
    slots = _slots(boxes, across)
    for way in across:
        begins, ends = (slots.get((way.number, name)) for name in (way.source, way.destination))
        # The board itself is met where the other end stands.
        x0, y0 = begins[:2] if begins else (ends[0] if ends else 0.0, way.y)
        x1, y1 = ends[:2] if ends else (x0, way.y)
        way.points = [_without_repeats([(x0, y0), (x0, way.y), (x1, way.y), (x1, y1)])]
        way.heads = [(x1, y1, ends[2] if ends else "up" if y0 > y1 else "down")]
        way.dots = [] if begins else [(x0, y0)]


def _route_below(boxes: Mapping[str, Box], layout: _Layout) -> None:
    """Draws what runs below the boxes: ways within a zone, and ways from who administers to every host."""
    hosts = [box for box in layout.boxes if box.side == "bottom" and box.name not in ZONES]
    taken: dict[str, list[tuple[int, bool]]] = {}
    for way in layout.within:
        taken.setdefault(way.source, []).append((way.number, True))
        taken.setdefault(way.destination, []).append((way.number, False))
    for box in hosts:
        taken.setdefault(box.name, []).extend((way.number, False) for way in layout.fans)
    places = {
        (number, name, outgoing): x
        for name, ends in taken.items()
        for (number, outgoing), x in zip(ends, _spread(boxes[name], len(ends), 0), strict=True)
    }
    for way in layout.within:
        bottom = boxes[way.source].y + boxes[way.source].height
        x0, x1 = places[way.number, way.source, True], places[way.number, way.destination, False]
        way.points = [[(x0, bottom), (x0, way.y), (x1, way.y), (x1, bottom)]]
        way.heads = [(x1, bottom, "up")]
    for index, way in enumerate(layout.fans):
        ends_at = [(places[way.number, box.name, False], box.y + box.height) for box in hosts]
        # The edge is reached past the zones, through the gap at their right.
        ends_at.append((layout.gap + GRID * (index + 1) / (len(layout.fans) + 1), layout.board.y + layout.board.height))
        start: Point = (layout.side.x, way.y)
        for x, y in sorted(ends_at):
            way.points.append(_without_repeats([start, (x, way.y), (x, y)]))
            way.heads.append((x, y, "up"))
            start = (x, way.y)


def _slots(boxes: Mapping[str, Box], across: Sequence[Way]) -> dict[tuple[int, str], tuple[float, float, str]]:
    """Where each way across the board meets its boxes: {(number, endpoint): (x, y, direction of an arrow that ends there)}."""
    found: dict[tuple[int, str], tuple[float, float, str]] = {}
    # From below first: a box above takes a line straight up where one comes.
    for box in sorted(boxes.values(), key=lambda each: each.side == "top"):
        at_top = box.side == "top"
        straight: dict[int, float] = {}
        ends: list[tuple[int, float, Way]] = []
        for way in across:
            if box.name not in _ends(way):
                continue
            other = _other(way, box.name)
            below = found.get((way.number, other))
            if at_top and below is not None and box.x < below[0] < box.x + box.width:
                straight[way.number] = below[0]
                continue
            direction = _direction(box, boxes.get(_key(other)))
            # Lines that turn the same way are nested, so that they don't cross one another.
            ends.append((direction, way.y if (direction > 0) != at_top else -way.y, way))
        ends.sort(key=lambda end: end[:2])
        places = dict(straight)
        places.update((way.number, x) for (*_, way), x in zip(ends, _spread(box, len(ends), GRID // 2 if at_top else 0), strict=True))
        for way in across:
            if way.number in places:
                name = way.source if _key(way.source) == box.name else way.destination
                y = box.y + box.height if at_top else box.y
                found[way.number, name] = (places[way.number], y, "up" if at_top else "down")
    return found


def _direction(box: Box, other: Box | None) -> int:
    """Whether a line turns left (-1) or right (1) to the other box, or can run straight (0)."""
    if other is None or (other.x <= box.middle <= other.x + other.width) or (box.x <= other.middle <= box.x + box.width):
        return 0
    return 1 if other.middle > box.middle else -1


def _key(endpoint: str) -> str:
    """The box that stands for an endpoint."""
    return "controllers" if endpoint == "management" else endpoint


def _ends(way: Way) -> tuple[str, str]:
    return _key(way.source), _key(way.destination)


def _other(way: Way, box: str) -> str:
    return way.destination if _key(way.source) == box else way.source


def _spread(box: Box, count: int, shift: int) -> list[float]:
    """Places on a box's edge, on the grid, apart by as much as fits (3 steps at most), around its middle."""
    step = GRID * max(1, min(3, (box.width // GRID - 1) // max(1, count)))
    first = _up(int(box.middle - (count - 1) * step / 2) - GRID // 2)
    return [float(first + index * step + shift) for index in range(count)]


def _up(value: int) -> int:
    """The next multiple of the grid."""
    return -(-value // GRID) * GRID


def _outer_box(site: _Site, name: str) -> Box:
    if name != "internet":
        return _sized(Box(name, "top", WHAT[name], [("of the inventory", False)], "addresses the inventory names"))
    outer = [host for host, said in site.hosts.items() if not set(GROUPS) & set(said["groups"])]
    text = f"here: {', '.join(outer)}" if outer else "no host here to look from"
    return _sized(Box(name, "top", WHAT[name], [(text, False)], text))


def _zone_boxes(site: _Site, zone: str, used: Iterable[str]) -> list[Box]:
    found = []
    for group in GROUPS:
        hosts = {name: site.hosts[name]["zones"].get(zone, []) for name in site.group(group) if site.home(name) == zone}
        if group == "edges" or not hosts:
            continue
        lines: list[tuple[str, bool]] = []
        for name, addresses in list(hosts.items())[:MOST_HOSTS]:
            lines.append((name, True))
            lines += [(address, False) for address in addresses]
        if len(hosts) > MOST_HOSTS:
            lines.append((f"and {len(hosts) - MOST_HOSTS} more", False))
        full = "; ".join(f"{name} ({', '.join(addresses)})" for name, addresses in hosts.items())
        found.append(_sized(Box(group, "bottom", WHAT[group], lines, full)))
    if zone in used or not found:
        found.append(_sized(Box(zone, "bottom", "any host" if found else "no host", [], f"zone {zone}")))
    return found


def _side_box() -> Box:
    return _sized(Box("controllers", "side", WHAT["controllers"], [("runs lemonstand", False)], "runs lemonstand"))


def _sized(box: Box) -> Box:
    """Wide enough for its longest line; what is too long even then is cut, and whole in the title."""
    most = int((WIDEST - 24) / LETTER)
    box.lines = [(text if len(text) <= most else text[: most - 1] + "…", name) for text, name in box.lines]
    letters = max(len(text) for text in [box.title, *(text for text, _ in box.lines)])
    box.width = _up(max(72, int(letters * LETTER) + 24))
    return box


def _without_repeats(points: Sequence[Point]) -> list[Point]:
    return [point for index, point in enumerate(points) if index == 0 or point != points[index - 1]]


def _path(points: Sequence[Point]) -> str:
    """SVG path data of a line with corners rounded as far as its stretches allow."""
    start = points[0]
    parts = [f"M{start[0]:g} {start[1]:g}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(6.0, _length(before, corner) / 2, _length(corner, after) / 2)
        near, far = _towards(corner, before, radius), _towards(corner, after, radius)
        parts.append(f"L{near[0]:g} {near[1]:g}Q{corner[0]:g} {corner[1]:g} {far[0]:g} {far[1]:g}")
    parts.append(f"L{points[-1][0]:g} {points[-1][1]:g}")
    return "".join(parts)


def _length(one: Point, two: Point) -> float:
    return abs(one[0] - two[0]) + abs(one[1] - two[1])


def _towards(start: Point, end: Point, by: float) -> Point:
    length = _length(start, end) or 1
    return start[0] + (end[0] - start[0]) * by / length, start[1] + (end[1] - start[1]) * by / length


def _head(x: float, y: float, direction: str) -> str:
    """An arrowhead whose tip is the point."""
    step = -1 if direction == "up" else 1
    return f"M{x:g} {y:g}l-4.2 {-step * 8}h8.4z"
