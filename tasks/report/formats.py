"""How figures, tables and pictures are written in a report. None is always "not measured" or a dash."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tasks.classes import CLASSES

if TYPE_CHECKING:
    from tasks.gate import Check

_DASH = "-"


def environment(html: bool) -> Environment:
    """Templates of this folder, escaped for HTML or left plain for Markdown. An unknown name is an error."""
    env = Environment(
        loader=PackageLoader("tasks.report", "."),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals |= {"CLASSES": CLASSES}
    env.filters |= {
        "percent": percent, "interval": interval, "figure": figure, "points": points, "ms": milliseconds,
        "mb": megabytes, "count": count, "duration": duration, "picture": data_uri, "cell": markdown_cell,
        "flat": flat, "value": check_value, "target": check_target, "margin": check_margin,
        "check_interval": check_interval, "words": words, "toml": json.dumps, "outcome_words": outcome_words,
    }  # fmt: skip
    return env


def percent(share: float | None, digits: int = 1) -> str:
    return _DASH if share is None else f"{100 * share:.{digits}f} %"


def interval(ends: tuple[float, float] | None) -> str:
    return _DASH if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def figure(value: float | None, digits: int = 3) -> str:
    return _DASH if value is None else f"{value:.{digits}f}"


def points(share: float | None) -> str:
    """A difference of shares in points of 100, with its sign."""
    if share is None:
        return _DASH
    change = round(100 * share, 1)
    return f"{change:+.1f} points" if change else "0.0 points"


def milliseconds(value: float | None) -> str:
    return _DASH if value is None else f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def megabytes(size: float | None) -> str:
    """MB of 1,000,000 bytes, as the target counts them."""
    return _DASH if size is None else f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def count(value: int | None) -> str:
    return _DASH if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return _DASH
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def words(name: str) -> str:
    """`leaked_pairs` → `leaked pairs`."""
    return name.replace("_", " ")


def outcome_words(outcome: str | None) -> str:
    """`PartlyDeployed` → `Partly deployed`; None for a night that passed the gate and has not ended."""
    if outcome is None:
        return "Passed the gate"
    return re.sub(r"(?<!^)([A-Z])", r" \1", outcome).capitalize()


def check_value(check: "Check") -> str:
    return "not measured" if check.value is None else _quantity(check.value, check)


def check_target(check: "Check") -> str:
    return f"{check.sense} {_quantity(check.target, check)}"


def check_margin(check: "Check") -> str:
    """Distance to the target; a minus is how far the check missed it."""
    if check.margin is None:
        return _DASH
    if check.unit == "share":
        return points(check.margin)
    return f"{'+' if check.margin >= 0 else ''}{check.digits(check.margin)} {check.unit}".rstrip()


def check_interval(check: "Check") -> str:
    if check.interval is None:
        return _DASH
    low, high = check.interval
    return interval(check.interval) if check.unit == "share" else f"{low:+.2f} to {high:+.2f} {check.unit}"


def _quantity(value: float, check: "Check") -> str:
    if check.unit == "share":
        return percent(value)
    return f"{check.digits(round(value, 2) if abs(value) < 1 else value)} {check.unit}".rstrip()


def data_uri(path: Path) -> str:
    """A PNG as a data URI, so that the report is one file."""
    return data_uri_of(path.read_bytes())


def data_uri_of(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def markdown_cell(text: object) -> str:
    """Text that can't break out of a Markdown table's cell."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested dicts, as `--set` and a TOML file spell them."""
    for name, value in tree.items():
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(value, dict) and value:
            yield from flat(value, path)
        else:
            yield path, value
