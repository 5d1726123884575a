"""Flows as a document: a diagram and a table, in Markdown."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable

from lemonstand.policy.flows import ENDPOINTS, Flow, load_flows

HEAD = """# Who may talk to whom

Generated from `playbooks/flows.yml` by `make docs`. What is not here is closed, in both directions and both IP versions.
"""


def document(flows: Iterable[Flow], head: str = HEAD, own: Collection[str] = ()) -> str:
    """The diagram (Mermaid) and the table of some flows.

    Args:
        flows: in the order of the table.
        head: what stands above.
        own: names of those that a site adds, which are marked.
    """
    listed = tuple(flows)
    return "\n".join([head, "```mermaid", *_diagram(listed), "```", "", *_table(listed, own), ""])


def _diagram(flows: tuple[Flow, ...]) -> list[str]:
    arrows: dict[tuple[str, str], list[str]] = {}
    for flow in flows:
        arrows.setdefault((flow.source, flow.destination), []).append(f"{flow.name} {_ports(flow)}")
    used = {end for pair in arrows for end in pair}
    lines = ["flowchart LR"]
    lines += [f"  {name}[{name}]" for name in ENDPOINTS if name in used]
    lines += [f'  {source} -->|"{"<br>".join(labels)}"| {target}' for (source, target), labels in arrows.items()]
    return lines


def _table(flows: tuple[Flow, ...], own: Collection[str]) -> list[str]:
    lines = ["| flow | from | to | ports | published | when | why | controls |", "|---|---|---|---|---|---|---|---|"]
    for flow in flows:
        published = "yes" if flow.publish else ""
        when = "" if flow.when == "always" else f"`{flow.when}`"
        reason = flow.reason.replace("|", "\\|")
        name = f"{flow.name} (of this site)" if flow.name in own else flow.name
        cells = (name, flow.source, flow.destination, _ports(flow), published, when, reason, ", ".join(flow.controls))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ports(flow: Flow) -> str:
    return f"{flow.protocol} {', '.join(map(str, flow.ports))}".strip() + (f" by {' and '.join(flow.by)}" if flow.by else "")


if __name__ == "__main__":
    sys.stdout.write(document(load_flows().flows))
