"""The legend of an exhibit as HTML: one for all its panels, in the colours of either theme."""

import html
from collections.abc import Sequence

from scaling.analysis.report.charts import SPANS, THEMES
from scaling.analysis.report.figures import scale_colours
from scaling.analysis.report.panels import BEYOND, ROLES, Panel, Scale, Series

SIGNS = {
    "circle": "●",
    "circle-open": "○",
    "diamond": "◆",
    "diamond-open": "◇",
    "star": "★",
    "square": "■",
    "triangle-up": "▲",
    "triangle-down": "▼",
    "cross": "✚",
}
STOPS = 9


def legend(panels: Sequence[Panel]) -> str:
    """Every label once, with its sign, and the colour scale."""
    named: dict[str, Series] = {}
    for panel in panels:
        named |= {series.label: series for series in panel.series if series.label not in named}
    named.pop("", None)
    entries = [f"<li>{_key(series)}{html.escape(label)}</li>" for label, series in named.items()]
    if any(panel.extrapolates for panel in panels):
        key = '<span class="key band" style="color:var(--quiet)" aria-hidden="true"></span>'
        entries.append(f"<li>{key}{BEYOND}</li>")
    scales = {panel.scale for panel in panels if not any(s.tag for s in panel.series)}
    entries += [_bar(scale) for scale in scales if scale is not None]
    return f'<ul class="legend">{"".join(entries)}</ul>' if entries else ""


def colours() -> str:
    """A CSS property for every role, of two colours: that on a light and that on a dark ground."""
    light, dark = THEMES["light"], THEMES["dark"]
    return "".join(f"--{role}:light-dark({light[role]},{dark[role]});" for role in ROLES)


def _key(series: Series) -> str:
    sign = SIGNS[series.marker] if series.shape == "points" else ""
    kind = "dashed" if series.dashed else series.shape
    style = f"color:var(--{series.role})"
    return f'<span class="key {kind}" style="{style}" aria-hidden="true">{sign}</span>'


def _bar(scale: Scale) -> str:
    each = zip(
        *(scale_colours(*SPANS[theme], steps=STOPS) for theme in ("light", "dark")), strict=True
    )
    stops = ",".join(f"light-dark({light},{dark})" for light, dark in each)
    low, high = (html.escape(scale.write(end)) for end in (scale.low, scale.high))
    return (
        f"<li>{html.escape(scale.title)}: {low}"
        f'<span class="bar" style="background:linear-gradient(to right,{stops})"></span>{high}</li>'
    )
