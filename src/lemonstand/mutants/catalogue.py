"""The mutants as data (`mutants.yml`)."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lemonstand.errors import LemonstandError

DATA = Path(__file__).with_name("mutants.yml")


class Mutant(BaseModel):
    """One deliberate break.

    Args:
        name: unique, kebab-case.
        controls: those it breaks.
        host: a lab's host it is made on.
        files: what it changes there; saved before, put back after.
        change: shell commands that change them, or the running host.
        apply: shell commands that bring the host to the files, used for breaking and for mending.
        mend: shell commands that mend what is not in files.
        noticed_by: the checks that must fail, as pytest's -k takes it: names joined by `or`.
        disruptive: whether those checks disturb the site.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    controls: tuple[str, ...] = Field(min_length=1)
    host: str
    files: tuple[str, ...] = ()
    change: str = Field(min_length=1)
    apply: str = ""
    mend: str = ""
    noticed_by: tuple[str, ...] = Field(min_length=1)
    disruptive: bool = False


def load_mutants(path: Path = DATA) -> tuple[Mutant, ...]:
    """Reads the catalogue.

    Raises:
        LemonstandError: it breaks its own form; that is a fault of this copy of lemonstand.
    """
    try:
        mutants = tuple(Mutant.model_validate(entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["mutants"])
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise LemonstandError(f"mutants can't be read: {error}", str(path), "restore the file from the release") from None
    names = [mutant.name for mutant in mutants]
    if len(set(names)) < len(names):
        raise LemonstandError("two mutants share a name", str(path), "give each a name of its own")
    return mutants
