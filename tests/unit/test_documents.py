"""What is printed for others: DNS records and the change request for a firewall."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lemonstand.derived.change_request import FORMATS, change_request, render, span
from lemonstand.derived.dns import records, reverse, sources
from lemonstand.site import Site, load_site
from lemonstand.site.shipped import filter_plugin
from sample_site import Tree, host, leg, sound_site, write_site


def _site(folder: Path, **changes: object) -> Site:
    tree: Tree = sound_site()
    tree["all"].update(changes)
    return load_site(write_site(folder, tree))


def test_records_lead_to_the_services(tmp_path: Path) -> None:
    lines = [str(record) for record in records(_site(tmp_path))]
    assert "lemon.example. IN MX 10 mx.lemon.example." in lines
    assert "_imap._tcp.lemon.example. IN SRV 10 1 143 mail.lemon.example." in lines
    assert "_submissions._tcp.lemon.example. IN SRV 0 1 465 mail.lemon.example." in lines
    assert "mail.lemon.example. IN A 203.0.113.1" in lines
    assert "mx.lemon.example. IN AAAA 2001:db8:2::20" in lines


def test_the_letter_of_the_seed_names_starttls_ports_alone(tmp_path: Path) -> None:
    ports = [record.value.split()[2] for record in records(_site(tmp_path, lemonstand_tls_profile="seed-strict")) if record.kind == "SRV"]
    assert ports == ["143", "587"]


def test_records_say_whose_mail_it_is(tmp_path: Path) -> None:
    site = _site(tmp_path, lemonstand_pki_dir=str(tmp_path / "pki"))
    texts = {record.name: record.value for record in records(site) if record.kind == "TXT"}
    assert texts["lemon.example"] == "v=spf1 ip4:203.0.113.1 ip6:2001:db8:2::20 ~all"
    assert texts["mx.lemon.example"] == "v=spf1 ip4:203.0.113.1 ip6:2001:db8:2::20 -all"
    assert texts["_dmarc.lemon.example"] == "v=DMARC1; p=none; adkim=s; rua=mailto:postmaster@lemon.example"
    assert not [name for name in texts if "_domainkey" in name], "before the first apply there is no key"
    filter_plugin("signing_keys").keys(tmp_path / "pki")
    assert not (tmp_path / "pki").exists(), "a plan shows that there will be a key, and keeps none"
    (tmp_path / "pki").mkdir()
    (key,) = filter_plugin("signing_keys").keys(tmp_path / "pki")
    texts = {record.name: record.value for record in records(site) if record.kind == "TXT"}
    assert texts[f"{key['selector']}._domainkey.lemon.example"] == f"v=DKIM1; k=rsa; p={key['public']}"
    assert "1.113.0.203.in-addr.arpa. IN PTR mx.lemon.example." in [str(each) for each in reverse(site)]


def _with_a_smarthost(tmp_path: Path, **more: str) -> Site:
    password = tmp_path / "password"
    password.write_text("geheim\n", encoding="ascii")
    password.chmod(0o600)
    addresses = ["203.0.113.77", "2001:db8:77::1"]
    smarthost = {"name": "smtp.example.net", "addresses": addresses, "user": "site", "password_file": str(password), **more}
    return _site(tmp_path / "site", lemonstand_services={"smarthost": smarthost})


def test_with_a_smarthost_spf_names_where_that_sends_from(tmp_path: Path) -> None:
    assert sources(_with_a_smarthost(tmp_path)) == ["ip4:203.0.113.77", "ip6:2001:db8:77::1"]
    assert sources(_with_a_smarthost(tmp_path, spf="include:_spf.example.net")) == ["include:_spf.example.net"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_change_request_asks_for_the_smarthost_and_no_way_else(tmp_path: Path, form: str) -> None:
    shown = render(change_request(_with_a_smarthost(tmp_path)), form)
    assert "the smarthost (203.0.113.77, 2001:db8:77::1)" in shown
    assert "hand-to-smarthost" in shown
    assert "outbound-mail" not in shown


def test_a_routed_dmz_sends_from_its_own_addresses(tmp_path: Path) -> None:
    tree: Tree = sound_site()
    tree["all"].pop("lemonstand_public_ipv4")
    tree["all"]["lemonstand_routed_ipv4"] = True
    site = load_site(write_site(tmp_path, tree))
    relay = site.group("relays")[0].interfaces["dmz"]
    assert sources(site) == [f"ip4:{relay.ipv4}", f"ip6:{relay.ipv6}"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_flow_across_a_border_is_asked_for_once(tmp_path: Path, form: str) -> None:
    site = _site(tmp_path)
    request = change_request(site)
    text = render(request, form)
    asked = [opening.flow.name for opening in request.openings]
    assert len(asked) == len(set(asked))
    within = {flow.name for flow in site.active_flows} - set(asked)
    assert within == {"management-ssh", "submission-to-imap", "time-dmz", "time-auth", "time-store"}
    for opening in request.openings:
        mark = f"({opening.flow.name})" if form == "md" else f"<code>{opening.flow.name}</code>"
        assert text.count(mark) == 1
        assert opening.source in text
    assert "2 h 4 min" in text
    assert "203.0.113.1" in text


def test_what_a_site_adds_is_asked_for_and_escaped(tmp_path: Path) -> None:
    flow = {
        "name": "sieve", "from": "internet", "to": "frontends", "protocol": "tcp", "ports": [4190],
        "reason": "scripts <b>&</b> filters", "controls": ["LEM-3-09"],
    }  # fmt: skip
    text = render(change_request(_site(tmp_path, lemonstand_flows_extra=[flow], lemonstand_flows_disabled=["submission"])), "html")
    assert "scripts &lt;b&gt;&amp;&lt;/b&gt; filters" in text
    assert "<code>sieve</code>" in text
    assert "<code>submission</code>" not in text


def test_the_page_stands_alone(tmp_path: Path) -> None:
    text = render(change_request(_site(tmp_path)), "html")
    opened: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in {"meta"}:
                opened.append(tag)
            assert tag not in {"script", "link", "img", "iframe"}

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Reader().feed(text)
    assert opened == []
    assert not re.search(r"https?://", text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(7440, "2 h 4 min"), (1740, "29 min"), (240, "4 min"), (432000, "5 d"), (0, "0 s"), (61, "1 min 1 s")]
)
def test_spans(seconds: int, text: str) -> None:
    assert span(seconds) == text


ASKED = (
    "tcp 143",
    "tcp 587",
    "connections begin on the left",
    "is remembered for at least",
    "2 h 4 min",
    "No connection is ended for",
    "no age limit",
    "no inspection, no",
    "fixup",
    "Destination Unreachable (3",
    "Packet Too Big (2)",
    "Time Exceeded (11)",
    "Parameter Problem",
    "Benefit",
    "Security",
    "nc -vz mail.lemon.example 143",
    "openssl s_client -starttls imap",
    "lemonstand verify",
    "lemonstand service close",
    "LEM-6-02",
)
"""What the owner of a firewall has to read (RFC 5383 section 6.1)."""


@pytest.mark.parametrize("form", FORMATS)
def test_the_request_says_all_its_owner_needs(tmp_path: Path, form: str) -> None:
    text = " ".join(render(change_request(_site(tmp_path)), form).split())
    assert [word for word in ASKED if word not in text] == []
    assert "Known today" not in text


@pytest.mark.parametrize("form", FORMATS)
def test_the_request_names_deviations_and_gaps(tmp_path: Path, form: str) -> None:
    waiver = {"reason": "the provider's ceiling", "owner": "network team", "date": "2020-01-01", "expires": "2999-01-01"}
    box = {"name": "balancer", "between": ["internet", "dmz"], "established": 6000, "waiver": waiver}
    text = render(change_request(_site(tmp_path, lemonstand_middleboxes=[box])), form).replace("&#39;", "'").replace("&gt;", ">")
    assert "middlebox 'balancer' between internet and dmz: established = 6000, not >= 7440" in text
    assert "network team, until 2999-01-01" in text


def test_records_of_managesieve_come_with_it(tmp_path: Path) -> None:
    assert not [record for record in records(_site(tmp_path)) if record.name.startswith("_sieve")]
    lines = [str(record) for record in records(_site(tmp_path, lemonstand_managesieve=True))]
    assert "_sieve._tcp.lemon.example. IN SRV 0 1 4190 mail.lemon.example." in lines


def test_each_relay_has_a_name_and_a_preference(tmp_path: Path) -> None:
    tree = sound_site()
    tree["hosts"]["all"]["children"]["relays"]["hosts"]["relay2"] = host(23, dmz=leg("dmz0", "192.0.2.21", "2001:db8:2::21"))
    lines = [str(record) for record in records(load_site(write_site(tmp_path, tree)))]
    assert {"lemon.example. IN MX 10 mx.lemon.example.", "lemon.example. IN MX 20 mx2.lemon.example."} <= set(lines)
    assert "mx2.lemon.example. IN A 203.0.113.1" in lines
    assert [line for line in lines if line.startswith("mx") and "AAAA" in line] == [
        "mx.lemon.example. IN AAAA 2001:db8:2::20",
        "mx2.lemon.example. IN AAAA 2001:db8:2::21",
    ]
