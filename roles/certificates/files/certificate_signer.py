"""Sign for a site on a machine of its own: one question on standard input, one answer on standard output (docs/decisions/0053).

Argument: the policy's file, JSON: `directory` (where the CAs are), `label` (in the subject of a CA that is made), `ca_days`, `days`
(the longest life that is signed), `rotate` and `seal` (whether these questions are answered), and `authorities`: by CA its `usages`
(`server`, `client`), its `names` (exactly these are signed for) and `suffixes`, the name constraints of one that is made. What the
policy does not have is refused, with nothing done. Meant as the shell of a user that does nothing else. `--policy FILE` looks at a policy
alone.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from rotate_authorities import RETIRED, STEPS
from sign_certificates import (
    PARTS,
    SAFE_NAME,
    USAGES,
    VERSION,
    Authority,
    Directory,
    SignError,
    certificate_of,
    check_order,
    fingerprint,
    load_authority,
    locked,
    read_rotation,
    record,
    seal,
    sign,
    to_pem,
)

LONGEST = 1 << 20
"""Octets of a question."""
HOSTS = "hosts"
"""The CA that seals."""
SEALED = {"generation": int, "active": dict}
"""What a text that is sealed holds: who serves (docs/decisions/0036)."""
OWNER = "its owner takes a new policy: `lemonstand certificates policy`"


class UnderPolicy:
    """Answers about the CAs of one policy."""

    def __init__(self, policy: dict[str, Any], *, check: bool) -> None:
        self.policy = policy
        self.check = check
        self.directory = Path(policy["directory"])
        self.order: dict[str, Any] = {
            "directory": policy["directory"], "check": check, "ca_days": float(policy["ca_days"]), "ca_label": policy["label"],
            "ca_name_constraints": {name: each["suffixes"] for name, each in policy["authorities"].items()},
        }  # fmt: skip

    def authorities(self, question: dict[str, Any]) -> dict[str, Any]:
        """Makes CAs that are asked for, are in the policy and are not there."""
        names = [str(name) for name in question["names"]]
        for name in names:
            self._in_policy(name)
        _, made = Directory(self.order).authorities(names)
        return {"made": made}

    def sign(self, question: dict[str, Any]) -> dict[str, Any]:
        """Signs all that is asked for, or nothing."""
        requests = question["requests"]
        for request in requests:
            check_order({"requests": [{**request, "name": "x"}], "trusted_cas": []})
            self._allowed(request)
        signed = []
        for request in [] if self.check else requests:
            csr = x509.load_pem_x509_csr(str(request["csr"]).encode("ascii"))
            signed.append(sign(csr, request, self._authority(request["ca"]), float(request["days"])))
        for request, certificate in zip(requests, signed, strict=False):
            record(self.directory / request["ca"], str(request["host"]), {**request, "name": str(request["name"])}, certificate)
        return {"certificates": [to_pem(each) for each in signed]}

    def _authority(self, name: str) -> Authority:
        ca = load_authority(self.directory / name)
        if ca is None:
            raise SignError(f"there is no CA {name} here")
        return ca

    def _in_policy(self, name: str) -> dict[str, Any]:
        allowed: dict[str, Any] | None = self.policy["authorities"].get(name)
        if allowed is None:
            raise SignError(f"the policy here has no CA {name}; {OWNER}")
        return allowed

    def _allowed(self, request: dict[str, Any]) -> None:
        allowed = self._in_policy(str(request["ca"]))
        where = f"by the CA {request['ca']}"
        if request["usage"] not in allowed["usages"]:
            raise SignError(f"the policy here signs nothing for a {request['usage']} {where}; {OWNER}")
        strange = sorted({str(name) for name in request["names"]} - set(allowed["names"]))
        if strange:
            raise SignError(f"the policy here does not sign for {', '.join(strange)} {where}; {OWNER}")
        if not 0 < float(request["days"]) <= float(self.policy["days"]):
            raise SignError(f"the policy here signs for {self.policy['days']} days at the most, not for {request['days']}; {OWNER}")

    def rotate(self, question: dict[str, Any]) -> dict[str, Any]:
        """Takes one step of a change of CAs."""
        if not self.policy.get("rotate"):
            raise SignError(f"the policy here has no change of CAs; {OWNER}")
        wanted = [str(name) for name in question["authorities"]]
        for name in wanted:
            self._in_policy(name)
        order = {**self.order, "authorities": wanted}
        return {"changed": STEPS[question["step"]](self.directory, read_rotation(self.directory), order)}

    def seal(self, question: dict[str, Any]) -> dict[str, Any]:
        """Signs a text that says who serves, and no other: never what a certificate's signature is made over."""
        if not self.policy.get("seal"):
            raise SignError(f"the policy here seals nothing; {OWNER}")
        text = str(question["text"])
        said = json.loads(text)
        right = isinstance(said, dict) and set(said) == set(SEALED) and all(type(said[key]) is kind for key, kind in SEALED.items())
        if not right or not text.startswith("{"):
            raise SignError("only a text that says which host serves is sealed")
        return {"signature": seal(self._authority(HOSTS).private, text)}

    def told(self) -> dict[str, Any]:
        """What every answer says of the CAs."""
        found: dict[str, dict[str, str]] = {}
        retired: dict[str, list[str]] = {}
        for name in self.policy["authorities"]:
            folder = self.directory / name
            files = {**{part: folder / file for part, file in PARTS.items()}, "signs": certificate_of(folder)}
            there = {part: pem(path) for part, path in files.items() if path.exists()}
            if "signs" in there:
                found[name] = there
            retired[name] = [fingerprint(pem(path)) for path in sorted(self.directory.glob(f"{RETIRED}/*/{name}/ca.crt"))]
        return {"authorities": found, "retired": retired, "rotation": read_rotation(self.directory)}


def pem(path: Path) -> str:
    """A certificate's file as PEM in its one form."""
    return to_pem(x509.load_pem_x509_certificate(path.read_bytes()))


def answer(policy: dict[str, Any], asked: str) -> dict[str, Any]:
    """Answers one question.

    Raises:
        SignError: it is refused; nothing was done.
    """
    try:
        question = json.loads(asked)
        if question["version"] != VERSION:
            raise SignError(f"questions here are of version {VERSION}, not {question['version']}; put the same lemonstand on both")
        desk = UnderPolicy(policy, check=bool(question["check"]))
        ways: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "authorities": desk.authorities, "sign": desk.sign, "rotate": desk.rotate, "seal": desk.seal,
        }  # fmt: skip
        with locked(desk.directory):
            done = ways[question["question"]](question)
            return {**done, **desk.told()}
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise SignError(f"that is no question to a signer: {fault!r}") from None
    except OSError as fault:
        raise SignError(f"its CAs can't be read or written: {fault}; its owner looks after the directory of the policy") from None


FORM = {"directory": str, "label": str, "ca_days": (int, float), "days": (int, float), "rotate": bool, "seal": bool, "authorities": dict}
FORM_OF_ONE = {"usages": list, "names": list, "suffixes": list}


def policy_faults(policy: Any) -> list[str]:
    """What a policy lacks or has too much; without this a word that was mistyped would allow what it should forbid."""

    def against(value: Any, form: dict[str, Any], where: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        faults = [f"{where} has '{key}', which means nothing" for key in sorted(set(value) - set(form))]
        wrong = [key for key, kind in form.items() if not isinstance(value.get(key), kind)]
        return faults + [f"{where} lacks '{key}', or it is of another kind" for key in wrong]

    faults = against(policy, FORM, "the policy")
    for name, one in ({} if faults else policy["authorities"]).items():
        where = f"the CA '{name}'"
        faults += against(one, FORM_OF_ONE, where)
        if not SAFE_NAME.fullmatch(name) or name == RETIRED:
            faults.append(f"{where} can't have that name")
        if not faults and not set(one["usages"]) <= set(USAGES):
            faults.append(f"{where}: usages are {' and '.join(USAGES)}")
    return faults


def main() -> int:
    """Read the question, print the answer; 1 if it is refused."""
    os.umask(0o077)
    policy = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    faults = policy_faults(policy)
    if sys.argv[1] == "--policy":
        print("\n".join(faults), file=sys.stderr)
        return 1 if faults else 0
    try:
        if faults:
            raise SignError(f"its policy is not whole: {'; '.join(faults)}")
        asked = sys.stdin.read(LONGEST + 1)
        if len(asked) > LONGEST:
            raise SignError(f"a question has {LONGEST} octets at the most")
        print(json.dumps(answer(policy, asked)))
    except SignError as problem:
        print(json.dumps({"error": str(problem)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
