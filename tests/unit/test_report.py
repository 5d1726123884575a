"""The report's page, from evidence alone: nothing breaks out, nothing is missing, nothing is made up."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lemonstand.checks.live import keep_matrix
from lemonstand.derived import CONTROLLER, Cell, expected_matrix
from lemonstand.errors import LemonstandError
from lemonstand.evidence.chain import chain
from lemonstand.evidence.document import policy_of
from lemonstand.evidence.picture import Picture, draw
from lemonstand.evidence.plot import plots, tallies
from lemonstand.evidence.report import banners, reachability, render, sentence, state_of, value, verdict
from lemonstand.evidence.write import check_form
from lemonstand.paths import data_dir
from lemonstand.site import Site, load_site
from sample_report import CATALOGUE, HOSTILE, sample_report
from sample_site import sound_site, write_site

VOID = {"meta", "br", "input", "rect", "line", "path", "circle"}
Segment = tuple[float, float, float, float]


class Reader(HTMLParser):
    """Reads a page, holds each tag to its end, and keeps ids, links and elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keeps what a test looks at."""
        self.tags.append(tag)
        if tag not in VOID:
            self.opened.append(tag)
        for name, given in attrs:
            assert not name.startswith("on"), f"{name} on {tag}"
            assert name not in {"style", "src"}, f"{name} on {tag}"
            if name == "id":
                self.ids.append(given or "")
            if name == "href":
                self.links.append(given or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element of SVG that is closed at once."""
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        """The one that was opened last."""
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        self.text += data


def test_the_sample_is_evidence() -> None:
    check_form(sample_report())


def test_the_page_is_whole_and_stands_alone() -> None:
    page = Reader(render(sample_report(), CATALOGUE))
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert not {"link", "img", "iframe", "object", "base"} & set(page.tags)
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert {control["id"] for control in sample_report()["controls"]} <= set(page.ids)


def test_nothing_breaks_out() -> None:
    text = render(sample_report(), CATALOGUE)
    page = Reader(text)
    assert HOSTILE.split(" {{")[0] not in text
    assert "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)&lt;/script&gt;", "", text)
    assert "{{ 7 * 7 }}" in page.text
    assert HOSTILE in page.text


def test_every_name_of_the_evidence_is_escaped() -> None:
    """Whatever key is hostile: names of hosts, flows, zones, checks, controls, packages."""
    evidence = sample_report()
    evidence["site"] = HOSTILE
    evidence["policy"]["flows"][1]["reason"] = HOSTILE
    evidence["policy"]["flows"][1]["name"] = HOSTILE
    evidence["policy"]["zones"]["dmz"] = [HOSTILE]
    evidence["policy"]["profile"]["tls"] = HOSTILE
    evidence["hosts"][HOSTILE] = {"groups": ["frontends"], "zones": {"dmz": [HOSTILE]}, "packages": {HOSTILE: HOSTILE}}
    evidence["controls"][0]["statement"] = evidence["controls"][0]["sources"][0] = HOSTILE
    evidence["results"][0]["check"] = evidence["controls"][0]["checks"][0] = f"test_x.py::test_y[{HOSTILE}]"
    evidence["results"][0]["host"] = HOSTILE
    evidence["results"][0]["tables"][0]["rows"][0] = [HOSTILE, HOSTILE, HOSTILE, "tcp", 143, HOSTILE, "open"]
    evidence["mutants"][0]["name"] = evidence["controls"][0]["mutants"][0] = HOSTILE
    page = Reader(render(evidence, CATALOGUE))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags


def test_the_policy_names_the_script_and_the_style() -> None:
    text = render(sample_report())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert policy[1].count("sha256-") == 2
    assert text == render(sample_report())


def test_a_half_finished_run_says_so_at_the_top() -> None:
    evidence = sample_report(complete=False)
    assert banners(evidence)[0][0] == "bad"
    text = Reader(render(evidence)).text
    assert text.index("Half finished") < text.index("Overview")
    assert "Half finished" not in Reader(render(sample_report())).text


def test_banners_name_what_a_reader_must_know() -> None:
    evidence = sample_report()
    evidence["runs"][0]["selection"] = {"controls": ["LEM-7-*"], "sections": ["4.2"], "hosts": ["edge"], "keyword": "imap"}
    evidence["dropped"] = [{"run": "soak", "started": evidence["started"], "results": 4, "reason": "the inventory changed"}]
    evidence["waivers"][0]["ended"] = "it expired on 2027-11-25"
    evidence["code"]["modified"] = True
    evidence["hosts"]["edge"]["container"] = "podman"
    said = " ".join(text for _, text in banners(evidence))
    for word in ("LEM-7-*, section 4.2, edge, imap", "4 results of the soak run", "W1 holds no longer", "no commit", "containers"):
        assert word in said


@pytest.mark.parametrize("lacking", ["tables", "series", "waivers", "mutants", "packages", "flows", "timers", "results", "edges", "hosts"])
def test_what_is_missing_is_not_made_up(lacking: str) -> None:
    evidence = sample_report()
    if lacking in {"tables", "series"}:
        for result in evidence["results"]:
            result.pop(lacking, None)
    elif lacking == "packages":
        evidence["hosts"] = {name: {"groups": host["groups"], "zones": host["zones"]} for name, host in evidence["hosts"].items()}
    elif lacking == "flows":
        evidence["policy"]["flows"] = []
    elif lacking == "timers":
        evidence["policy"] |= {"timers": {}, "relations": [], "middleboxes": []}
    elif lacking == "edges":
        del evidence["hosts"]["edge"]
    elif lacking == "hosts":
        evidence |= {"hosts": {}, "policy": {"profile": {}, "zones": {}, "flows": [], "timers": {}, "relations": [], "middleboxes": []}}
    else:
        evidence[lacking] = []
    text = Reader(render(evidence, CATALOGUE)).text
    if lacking in {"tables", "results"}:
        assert "this evidence holds no matrix" in text
    if lacking in {"series", "results"}:
        assert "this evidence holds no capture" in text


def test_evidence_of_another_schema_is_refused() -> None:
    with pytest.raises(LemonstandError, match="schema"):
        render({**sample_report(), "schema": 1})


def test_what_was_asked_is_told_once_and_found_from_everywhere() -> None:
    evidence = sample_report()
    evidence["results"] = evidence["results"][:3]
    for number, result in enumerate(evidence["results"]):
        result["asked"] = [{"how": "setting", "host": "edge", "what": f"question-{number}", "answer": f"answer-{number}"}]
    shared = [result["check"] for result in evidence["results"]]
    for control in evidence["controls"]:
        control["checks"] = []
    evidence["controls"][0]["checks"] = shared[:2]
    evidence["controls"][1]["checks"] = shared
    text = Reader(render(evidence)).text
    for number in range(3):
        assert text.count(f"question-{number}") == text.count(f"answer-{number}") == 1
    assert text.count(f"and the answers: under {evidence['controls'][0]['id']}.") == 2


def test_counts_agree_with_the_controls() -> None:
    evidence = sample_report()
    text = render(evidence)
    for control in evidence["controls"]:
        assert f'id="{control["id"]}" data-status="{state_of(control)}"' in text
    counts = evidence["counts"]
    assert verdict(evidence).startswith(f"{counts['controls']} requirements: {counts['proven']} proven (")
    assert f"{counts['failed']} failed" in verdict(evidence)


def test_the_matrix_tells_what_is_wrong() -> None:
    grid = reachability(sample_report())
    assert grid is not None
    cells = {pair: [(chip["port"], chip["state"], chip["versions"]) for chip in cell["chips"]] for pair, cell in grid["cells"].items()}
    assert cells["vantage", "frontend"] == [(143, "open", [4, 6]), (587, "closed", [4])]
    assert cells["vantage", "auth"] == [(8443, "leak", [4])]
    assert cells["vantage", "store"] == []
    assert cells["frontend", "edge"] == [(123, "unseen", [4])]
    assert (grid["answered"], grid["silent"], grid["unseen"], grid["wrong"]) == (3, 41, 1, 2)
    assert grid["cells"]["vantage", "store"]["silent"] == 22


def test_a_way_by_a_flow_of_the_sites_own_is_marked() -> None:
    evidence = sample_report()
    evidence["results"][0]["tables"][0]["rows"].append(["relay", "vantage", "203.0.113.9", "tcp", 2525, "partner-mail", "open"])
    grid = reachability(evidence)
    assert grid is not None
    own = [pair for pair, cell in grid["cells"].items() for chip in cell["chips"] if chip["own"]]
    assert own == [("relay", "vantage")]
    text = render(evidence, CATALOGUE)
    assert 'class="chip open own" title="partner-mail (of this site): 203.0.113.9">2525*' in text
    assert "by a flow of the site's own" in text


def test_what_was_dialled_comes_through_the_evidence(tmp_path: Path) -> None:
    """From the cells that the check dialled to the chips of the page: all as flows say, then one way too many and one too few."""
    site = load_site(write_site(tmp_path, sound_site()))
    expected = expected_matrix(site)
    seen = {
        cell: "open" if flow else "silent"
        for cell, flow in expected.items()
        if cell.protocol == "tcp" and cell.source != CONTROLLER and (flow or cell.port != 143)
    }
    assert _matrix(site, seen)["wrong"] == 0
    assert _matrix(site, seen)["silent"] == sum(what == "silent" for what in seen.values())
    leak = next(cell for cell, what in seen.items() if what == "silent" and (cell.source, cell.destination) == ("store", "auth"))
    lost = next(cell for cell, what in seen.items() if what == "open" and expected[cell] == "ask-issuer")
    grid = _matrix(site, seen | {leak: "refused", lost: "silent"})
    assert grid["wrong"] == 2
    assert [chip["state"] for chip in grid["cells"]["store", "auth"]["chips"]] == ["leak"]
    assert "closed" in [chip["state"] for chip in grid["cells"]["frontend", "auth"]["chips"]]


def _matrix(site: Site, seen: dict[Cell, str]) -> dict[str, Any]:
    tables: list[dict[str, Any]] = []
    keep_matrix(site, seen, lambda name, columns, rows: tables.append({"name": name, "columns": [*columns], "rows": [*rows]}))
    grid = reachability({**sample_report(), "results": [{"tables": tables}]})
    assert grid is not None
    return grid


def test_values_are_readable() -> None:
    assert value(7200, "s") == "7 200 s (2 h)"
    assert value(True) == "yes"
    assert value("") == "empty"
    assert value(0.08712, "s") == "0.08712 s"
    assert sentence("test_imap.py::test_a_handset_logs_in_over_starttls[IPv4]") == "a handset logs in over STARTTLS"


def test_the_chain_sets_what_was_seen_beside_what_was_wanted() -> None:
    evidence = sample_report()
    for result in evidence["results"]:
        result["measured"] = []
    evidence["results"][0] |= {"host": "edge", "measured": [measured("kernel established", 7440), measured("kernel unack", 300)]}
    found = {number.name: number for hop in chain(evidence).hops for number in hop.numbers if hop.name == "edge"}
    assert found["established"].agrees is False
    assert found["unack"].seen == {"edge": {300.0}}
    assert found["retrans"].agrees is None
    relations = {(each.left, each.right): each for each in chain(evidence).relations}
    assert relations["established", "7440"].seen_holds is True
    assert relations["unack", "7440"].seen_holds is False
    assert relations["retrans", "7440"].seen_holds is None
    assert all(each.holds for each in relations.values())


def test_devices_of_others_stand_where_the_site_puts_them() -> None:
    evidence = sample_report()
    evidence["policy"]["middleboxes"] = [
        {"name": "core", "between": ["dmz", "store"], "established": 3600, "transitory": None},
        {"name": "balancer", "between": ["internet", "dmz"], "established": 7440, "transitory": 240},
    ]
    hops = [hop.name for hop in chain(evidence).hops]
    assert hops.index("box-balancer") < hops.index("edge") < hops.index("frontend") < hops.index("box-core") < hops.index("inner")
    assert "core" in Reader(render(evidence)).text


def test_what_was_captured_is_drawn_to_scale() -> None:
    evidence = sample_report()
    evidence["results"][0]["series"] = [
        {"name": "server", "unit": "B", "points": [[0.0, 52], [1740.0, 72], [3480.0, 36]]},
        {"name": "client", "unit": "B", "points": []},
    ]
    (plot,) = plots(evidence)
    (line,) = plot.lines
    first, middle, last = line.stems
    assert middle.x - first.x == last.x - middle.x
    assert last.x < plot.width
    assert middle.top < first.top < last.top < line.base < plot.height
    assert middle.text == "1740 s: 72 B"
    evidence["results"][1]["measured"] = [
        {"name": "watched for", "value": 120, "unit": "s", "volatile": True},
        {"name": "segments: line", "value": 4, "unit": "", "volatile": False},
        {"name": "segments: acknowledgement", "value": 8, "unit": "", "volatile": False},
    ]
    (tally,) = tallies(evidence)
    assert [(what, count) for what, count, _ in tally.bars] == [("line", 4), ("acknowledgement", 8)]
    assert tally.bars[1][2] == 2 * tally.bars[0][2]
    text = Reader(render(evidence)).text
    assert "watched for 120 s (2 min)" in text
    assert "this evidence holds no capture" not in text


def measured(name: str, number: float) -> dict[str, Any]:
    return {"name": name, "value": number, "unit": "s", "volatile": False}


def _stretches(picture: Picture) -> list[tuple[int, Segment]]:
    """Each straight stretch of each way, its ends in order."""
    found = []
    for way in picture.ways:
        for points in way.points:
            for (x0, y0), (x1, y1) in itertools.pairwise(points):
                assert x0 == x1 or y0 == y1
                found.append((way.number, (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))))
    return found


def _share(one: Segment, two: Segment) -> bool:
    """Whether two stretches lie on one another for more than a point."""
    for across, along in ((0, 1), (1, 0)):
        if one[across] == one[across + 2] == two[across] == two[across + 2]:
            return min(one[along + 2], two[along + 2]) > max(one[along], two[along])
    return False


def _extra(name: str, source: str, destination: str) -> dict[str, Any]:
    return {
        "name": name, "from": source, "to": destination, "protocol": "tcp", "ports": [4190], "published": False, "reason": "more",
        "controls": [],
    }  # fmt: skip


def _crowded() -> dict[str, Any]:
    """Every endpoint talks to every other, and groups have several hosts."""
    evidence = sample_report()
    names = ("internet", "dmz", "auth", "store", "management", "edges", "frontends", "auths", "stores", "relays", "controllers")
    pairs = itertools.product(names, (*names[:-1], "resolvers", "ntp"))
    evidence["policy"]["flows"] = [_extra(f"{source}-{end}", source, end) for source, end in pairs]
    for number in range(6):
        evidence["hosts"][f"frontend{number}"] = {
            "groups": ["frontends"],
            "zones": {"dmz": [f"2001:db8:1111:2222:3333:4444:5555:{number}"]},
        }
    return evidence


@pytest.mark.parametrize("evidence", [sample_report(), _crowded()], ids=["shipped", "crowded"])
def test_no_line_lies_on_another(evidence: dict[str, Any]) -> None:
    picture = draw(evidence)
    drawn = sum(len(way.flows) for way in picture.ways) + len(picture.left_out)
    assert drawn == len(evidence["policy"]["flows"])
    for (number, one), (other, two) in itertools.combinations(_stretches(picture), 2):
        assert number == other or not _share(one, two), f"{number} and {other}: {one} {two}"


@pytest.mark.parametrize("evidence", [sample_report(), _crowded()], ids=["shipped", "crowded"])
def test_boxes_stand_apart_and_no_line_runs_through_one(evidence: dict[str, Any]) -> None:
    picture = draw(evidence)
    areas = {box.name: (box.x, box.y, box.x + box.width, box.y + box.height) for box in picture.boxes}
    for (_, one), (_, two) in itertools.combinations(areas.items(), 2):
        assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
    for number, (x0, y0, x1, y1) in _stretches(picture):
        for name, (left, top, right, bottom) in areas.items():
            assert x1 <= left or right <= x0 or y1 <= top or bottom <= y0, f"way {number} runs through {name}"
        assert 0 <= x0 <= x1 <= picture.width
        assert 0 <= y0 <= y1 <= picture.height
    lanes = [way.y for way in picture.ways]
    assert len(lanes) == len(set(lanes))


def _palettes() -> dict[str, dict[str, str]]:
    style = (data_dir("templates") / "report.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    light, dark, paper = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", block)) for block in blocks)
    return {"light": light, "dark": {**light, **dark}, "print": {**light, **paper}}


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(each * 2 for each in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_contrast_is_enough(scheme: str) -> None:
    """WCAG AA: 4.5 to 1 for text, 3 to 1 for lines and marks that mean something."""
    palette = _palettes()[scheme]
    states = ("failed", "invalid", "live", "scaled", "configuration", "waived", "not-applicable", "not-measurable", "not-measured")
    grounds = ("paper", "card", "sunk")
    texts = [(ink, ground) for ink in ("ink", "quiet", "accent", *states, "client", "inner", "outward", "management") for ground in grounds]
    texts += [("warn-ink", "warn"), ("bad-ink", "bad"), ("note-ink", "note"), ("card", "live"), ("card", "failed")]
    texts += [("paper", state) for state in states]
    texts += [(ink, f"zone-{zone}") for ink in ("ink", "quiet") for zone in ("internet", "dmz", "auth", "store", "management")]
    marks = [(way, ground) for way in ("client", "inner", "outward", "management") for ground in ("board", "card")] + [("focus", "paper")]
    weak = []
    for pairs, least in ((texts, 4.5), (marks, 3.0)):
        for ink, ground in pairs:
            lights = sorted((_luminance(palette[ink]), _luminance(palette[ground])))
            contrast = (lights[1] + 0.05) / (lights[0] + 0.05)
            if contrast < least:
                weak.append(f"{ink} on {ground}: {contrast:.2f} to 1")
    assert weak == []


@pytest.mark.parametrize(
    ("tried", "placebo", "words"),
    [
        (None, False, "○ not tried"),
        ({}, False, "✓ noticed"),
        ({}, True, "✓ nothing broken, nobody said so"),
        ({"verdict": "missed", "missed": ["test_lem_3_01"]}, False, "✕ missed"),
        ({"verdict": "not asked"}, False, "! could not be tried"),
    ],
)
def test_a_mutant_is_told_with_what_came_of_it(tried: dict[str, Any] | None, *, placebo: bool, words: str) -> None:
    evidence = sample_report()
    mutant = evidence["mutants"][0]
    mutant["placebo"] = placebo
    mutant["tried"] = None if tried is None else {**mutant["tried"], **tried}
    text = render(evidence)
    assert words in text
    assert (
        "0 of 1 have been made and noticed; 1 have not been made" if tried is None else f"{int(words.startswith('✓'))} of 1 have been made"
    ) in text
    assert ("by an earlier state of lemonstand" in text) == (tried is not None)


def test_what_a_profile_breaks_on_purpose_is_no_fault(tmp_path: Path) -> None:
    site = sound_site()
    site["all"]["lemonstand_timer_profile"] = "nat-hostile"
    policy = policy_of(load_site(write_site(tmp_path, site)))
    evidence = sample_report()
    evidence["policy"] |= {"timers": policy["timers"], "relations": policy["relations"]}
    check_form(evidence)
    broken = [each for each in chain(evidence).relations if not each.holds]
    assert broken and all(each.deviation for each in broken)
    text = render(evidence)
    assert text.count("◇ broken on purpose") == len(broken)
    assert "✕ broken" not in text
