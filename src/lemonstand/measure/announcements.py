"""What services announce, on both sides of everything in between: whether it is the same, and whether it is true."""

from __future__ import annotations

import re
from typing import Any

from lemonstand.measure.vantage import Finding, Value, Vantage
from lemonstand.observations import Pool

STAGES = ("before TLS", "behind TLS", "after login")
BY_NATURE = {"STARTTLS", "AUTH", "LOGINDISABLED", "SASL-IR"}
"""Words that differ where the way of logging in does."""


def parity(vantage: Vantage, _seconds: int) -> Finding:
    """Greeting, CAPABILITY and EHLO at each stage: outside, at the frontend's own endpoint, at the store; and whether each word is true."""
    frontend = vantage.site.group("frontends")[0].name
    one = vantage.accounts[0]
    with Pool(max_workers=4) as pool:
        outside = {f: pool.submit(vantage.ask, "stages", endpoint=vantage.endpoints(f), account=one) for f in vantage.families}
        behind = {f: pool.submit(vantage.prober.ask, frontend, "stages", endpoint=vantage.near(f), account=one) for f in vantage.families}
        store = pool.submit(vantage.prober.ask, frontend, "store-stages", inner_services=vantage.inner_services, account=one)
        truth = {f: pool.submit(vantage.ask, "truth", endpoint=vantage.endpoints(f), account=one) for f in vantage.families}
        seen = {
            "outside": {f: job.result() for f, job in outside.items()},
            "behind": {f: job.result() for f, job in behind.items()},
            "store": store.result(),
            "truth": {f: job.result() for f, job in truth.items()},
        }
    data: dict[str, Any] = {**seen, "on the way": [], "by the frontend": [], "lies": [], "hidden": []}
    for family in vantage.families:
        for service in ("imap", "submission"):
            here, there = seen["outside"][family][service], seen["behind"][family][service]
            data["on the way"] += [
                f"IPv{family} {service} {stage}: {here[stage]!r} outside, {there[stage]!r} at the frontend"
                for stage in here
                if _comparable(here[stage]) != _comparable(there[stage])
            ]
            own = seen["store"][service]["after login"]
            differ = sorted(word for word in set(own) ^ set(here["after login"]) if word.split()[0].split("=")[0] not in BY_NATURE)
            data["by the frontend"] += [f"IPv{family} {service}: {word}" for word in differ]
            for word, (announced, works, answer) in seen["truth"][family][service].items():
                if announced != works:
                    data["lies" if announced else "hidden"].append(f"IPv{family} {service} {word}: {answer}")
    words, tried = (next(iter(seen[key].values())) for key in ("outside", "truth"))
    values = [Value(f"{service} words {stage}", len(words[service][stage])) for service in ("imap", "submission") for stage in STAGES]
    values += [
        Value("words tried", sum(len(tried[service]) for service in tried)),
        Value("differences between outside and the frontend's own door", len(data["on the way"])),
        Value("differences between frontend and store", len(data["by the frontend"])),
        Value("announced and not working", ", ".join(data["lies"]) or "none"),
        Value("working and not announced", ", ".join(data["hidden"]) or "none"),
    ]
    return Finding(values, data)


def _comparable(said: str | list[str]) -> list[str]:
    """The words of a stage without those about logging in: Dovecot takes a connection from its own address for a safe one."""
    words = re.sub(r"[][]", " ", said).split() if isinstance(said, str) else said
    return [word for word in words if word.split()[0].split("=")[0] not in BY_NATURE - {"STARTTLS", "SASL-IR"}]
