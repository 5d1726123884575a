"""Documents made from data by templates that ship (`templates/NAME.md.j2`, `templates/NAME.html.j2`)."""

from __future__ import annotations

from collections.abc import Callable

from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir


def written(name: str, form: str, filters: dict[str, Callable[..., object]] | None = None, **values: object) -> str:
    """A document as text.

    Args:
        name: of the template.
        form: `md` or `html`; HTML is one file without anything outside it, and its values are escaped.
        filters: what the template uses beside Jinja's own.
        values: what it is about.

    Raises:
        LemonstandError: the template is not there.
    """
    import jinja2  # noqa: PLC0415 - slow to import, and most commands write no document

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= filters or {}
    try:
        template = environment.get_template(f"{name}.{form}.j2")
    except jinja2.TemplateNotFound as error:
        raise LemonstandError(f"there is no template {error}", str(data_dir("templates")), "restore it from the release") from None
    return template.render(**values)
