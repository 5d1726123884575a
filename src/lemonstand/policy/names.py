"""Names: which login names, aliases and host names there are (`playbooks/names.yml`), and what is wrong with one that is none."""

from __future__ import annotations

import functools
import ipaddress
import re
import string
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, StrictInt

from lemonstand.paths import data_dir
from lemonstand.policy.text import read_shipped

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z")


class LocalPart(BaseModel):
    """A mailbox's name before the @."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    marks: str
    first_marks: str
    longest: StrictInt


class HostNames(BaseModel):
    """Names of hosts and domains (RFC 1123 section 2.1)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    longest_label: StrictInt
    longest: StrictInt
    reserved: tuple[str, ...] = ()


class Names(BaseModel):
    """The grammar, and the questions it answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    local_part: LocalPart
    longest: StrictInt
    recipient_delimiter: str = Field(min_length=1, max_length=1)
    refused: dict[str, str]
    host: HostNames

    @functools.cached_property
    def local_pattern(self) -> str:
        """A mailbox's name as a regular expression (Python, POSIX and PCRE read it alike), without anchors."""
        part = self.local_part
        marks, first = (re.sub(r"([\]\\^-])", r"\\\1", each) for each in (part.marks, part.first_marks))
        return rf"[a-z0-9{first}][a-z0-9{marks}]*(\.[a-z0-9{marks}]+)*"

    @property
    def login_pattern(self) -> str:
        """A whole login name as a regular expression that has to match all of it; its length over all is not in it."""
        label = rf"[a-z0-9](?:[a-z0-9-]{{0,{self.host.longest_label - 2}}}[a-z0-9])?"
        return rf"(?=[^@]{{1,{self.local_part.longest}}}@){self.local_pattern}@(?:{label}\.)+(?![0-9]+$){label}"

    @property
    def characters(self) -> str:
        """Every character a login name may be typed with, the @ included."""
        return "".join(sorted({*string.ascii_letters, *string.digits, *self.local_part.marks, *".@"}))

    @functools.cached_property
    def _local(self) -> re.Pattern[str]:
        return re.compile(self.local_pattern)

    def address_fault(self, text: str) -> str | None:
        """Why a text is no login name or alias, with what to do; None if it is one."""
        local, at, domain = text.rpartition("@")
        short = len(text) <= self.longest and len(local) <= self.local_part.longest
        if short and self._local.fullmatch(local) and self.domain_fault(domain) is None:
            return None  # most are sound, and a site may have many
        part, marks = self.local_part, " ".join(sorted(set(self.local_part.marks)))
        refused = next((each for each in local if each in self.refused), "")
        sorts = f"before the @ stand a to z, 0 to 9, {marks} and single dots between them, first a letter or digit; correct it"
        faults = (
            (not (at and local and domain), "write it as name@domain"),
            (any(each.isspace() for each in text), "take the space out of it"),
            (not local.isascii(), "letters before the @ are a to z: this site offers no SMTPUTF8, without which nobody could write to it"),
            (text.lower() != text, f"write it in lower case: {text.lower()}; what clients type in upper case means the same user"),
            (refused != "", f"'{refused}' {self.refused.get(refused)}; choose a name without it"),
            (not re.fullmatch(self.local_pattern, local), sorts),
            (
                len(local) > part.longest,
                f"before the @ stand {len(local)} characters, of {part.longest} at most (RFC 5321 4.5.3.1.1); shorten it",
            ),
            (len(text) > self.longest, f"it has {len(text)} characters, of {self.longest} at most (RFC 5321 4.5.3.1.3); shorten it"),
        )
        return next((fault for found, fault in faults if found), None) or self.domain_fault(domain)

    def domain_fault(self, text: str) -> str | None:
        """Why a text is no host name with a domain, with what to do; None if it is one."""
        if text not in self._domains:
            self._domains[text] = self._domain_fault(text)
        return self._domains[text]

    @functools.cached_property
    def _domains(self) -> dict[str, str | None]:
        """What was found of domains so far: many addresses share one."""
        return {}

    def _domain_fault(self, text: str) -> str | None:
        labels = text.split(".")
        longest = self.host.longest
        faults = (
            (not text.isascii(), f"'{text}' has letters that DNS has not; write its A-label, which begins with xn--"),
            (text.lower() != text, f"write it in lower case: {text.lower()}"),
            (text.endswith("."), "leave out the dot at its end"),
            (len(labels) < 2, "a host name has a domain: write it whole, as in mail.example.org"),
            (labels[-1].isdigit(), "it ends like an address; name the host"),
            (len(text) > longest, f"it has {len(text)} characters, of {longest} at most (RFC 1123 2.1); shorten it"),
        )
        told = next((fault for found, fault in faults if found), None)
        return told or next((fault for fault in map(self.label_fault, labels) if fault), None)

    def label_fault(self, label: str) -> str | None:
        """Why a text between two dots of a host name can't stand there."""
        if not label:
            return "two dots have nothing between them, or one stands first; correct it"
        if len(label) > self.host.longest_label:
            return f"'{label[:12]}…' has {len(label)} characters, of {self.host.longest_label} at most (RFC 1123 2.1); shorten it"
        if not _LABEL.match(label):
            return f"'{label}' is no label (a to z, 0 to 9, hyphens inside; RFC 1123 2.1); write {tidied(label)}"
        return None

    def host_fault(self, name: str, domain: str) -> str | None:
        """Why an inventory name can't be a host's: it makes the host's inner name, `name.domain`.

        Args:
            domain: the site's internal domain.
        """
        try:
            ipaddress.ip_address(name)
        except ValueError:
            numeric = name.replace(".", "").isdigit()
        else:
            numeric = True
        if numeric:
            return "it is read as an address; give the host a name, and the address to ansible_host"
        if name in self.host.reserved:
            return "it means something else already; give the host a name of its own"
        for label in name.split("."):
            fault = self.label_fault(label)
            if fault:
                rule = f"a to z, 0 to 9 and hyphens inside, {self.host.longest_label} at most between dots: RFC 1123 2.1"
                return f"it can't be a host name ({rule}); rename the host, to {tidied(name)} for instance"
        if len(f"{name}.{domain}") > self.host.longest:
            return f"its inner name {name[:12]}….{domain} has more than {self.host.longest} characters; shorten it"
        return None

    def canonical(self, typed: str) -> str:
        """A login name as it is kept, from what somebody typed: ASCII in lower case."""
        return typed.lower() if typed.isascii() else typed


def tidied(name: str) -> str:
    """A host name that looks like a text that is none."""
    labels = (re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:63].strip("-") for label in name.split("."))
    return ".".join(label for label in labels if label) or "store1"


def is_any_address(text: str) -> bool:
    """Whether a text is an address somewhere in the world: a dot-atom of ASCII at a domain (RFC 5321 section 4.1.2)."""
    local, at, domain = text.rpartition("@")
    return bool(at) and len(local) <= 64 and _ATOMS.match(local) is not None and load_names().domain_fault(domain.lower()) is None


@functools.cache
def load_names(path: Path | None = None) -> Names:
    """Reads `names.yml`.

    Args:
        path: another file; default: the shipped one.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    path = path or data_dir("playbooks") / "names.yml"
    return read_shipped(path, "names", lambda found: Names.model_validate(found["names"]))
