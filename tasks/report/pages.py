"""The pages of a night: report, history, model card, verdict, and the summary's text."""

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from storage.files import write_whole
from tasks.advice import advise
from tasks.night import Night
from tasks.prepare import PreparedData
from tasks.prepare.shortcuts import FIGURES, Shortcut
from tasks.report.formats import environment, flat
from tasks.report.history import PastNight, trends

RESPONSIBLE_USE = (
    "Inferring the emotions of people at the workplace or in education is prohibited in the European Union "
    "by Article 5(1)(f) of the AI Act (Regulation (EU) 2024/1689), save for medical or safety reasons. "
    "Whoever runs this model has to establish that such a reason applies, and to document it, before it "
    "watches anyone.",
    "Images of people are personal data. They are used to train under the terms on which they were given; "
    "reports show such images, so keep them as confidential as the data set.",
    "Inference stays on the device: no image and no person's result leaves it, only counts and timings do.",
    "A facial expression is not a feeling. The model says what a face looks like to annotators; it is no "
    "measure of stress or fatigue in a medical sense, and no decision about a person may rest on it alone.",
)

DRIFT_STEPS = (
    "Look at the picture and the sample sheets below: is it the camera, the light, other people, or labels?",
    "If the new images are wrong, take them out of the store; the next night starts without them.",
    "If they are what devices will see from now on, set drift.stop = false for one night, or raise the "
    "threshold that was passed. The champion was never tested on such images: read its figures with care.",
)

_PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy", "scikit-learn", "prefect")
_SECTIONS = (
    ("checks", "Checks"),
    ("advice", "Advice"),
    ("past", "Nights before"),
    ("devices", "Devices"),
    ("errors", "Right and wrong"),
    ("cameras", "Cameras"),
    ("elsewhere", "Elsewhere"),
    ("int8", "Float against INT8"),
    ("calibration", "Calibration"),
    ("data", "Data"),
    ("training", "Training"),
    ("provenance", "Provenance"),
    ("use", "Responsible use"),
)


def write_report(
    night: Night, out_dir: Path, past: Sequence[PastNight] = (), champion: str | None = None
) -> Path:
    """Write `report.html` into `out_dir`, whole or not at all, and return its path.

    `past` are the nights that it shows beside this one, the oldest first and this one last.
    """
    template = environment(html=True).get_template("report.html.j2" if night.candidate else "drifted.html.j2")
    shown = _past_context(past if len(past) > 1 else (), champion)
    return _write(out_dir / "report.html", template.render(_context(night) | shown | {"up": "../../"}))


def write_history(past: Sequence[PastNight], champion: str | None, out_dir: Path) -> Path:
    """Write `history.html`, which links to the reports of `past` (not empty, the oldest first)."""
    template = environment(html=True).get_template("history.html.j2")
    return _write(out_dir / "history.html", template.render(_past_context(past, champion)))


def write_verdict(night: Night, out_dir: Path) -> Path:
    """Write the gate's verdict and the targets it judged by as `verdict.json` into `out_dir`."""
    facts = {
        "experiment": night.id,
        "outcome": night.outcome,
        "targets": night.config.targets.model_dump(mode="json"),
        "verdict": night.verdict.model_dump(mode="json") if night.verdict else None,
    }
    return _write(out_dir / "verdict.json", json.dumps(facts, indent=1))


def summary_markdown(night: Night) -> str:
    """The verdict, figures, devices and advice without pictures: a few kB for Prefect's artifact page."""
    template = "summary.md.j2" if night.candidate else "drifted.md.j2"
    return environment(html=False).get_template(template).render(_context(night))


def model_card_markdown(night: Night) -> str:
    """Intended use, data, figures and limits of the INT8 model."""
    return environment(html=False).get_template("model_card.md.j2").render(_context(night))


def write_model_card(night: Night, out_dir: Path) -> tuple[Path, Path]:
    """Write `MODEL_CARD.md` and `model_card.html` into `out_dir` and return their paths."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    text = model_card_markdown(night)
    body = Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))
    page = environment(html=True).get_template("model_card.html.j2").render(body=body, night=night)
    return _write(out_dir / "MODEL_CARD.md", text), _write(out_dir / "model_card.html", page)


def installed_versions() -> dict[str, str]:
    """Python and the packages that figures depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def _context(night: Night) -> dict[str, Any]:
    config = night.config.model_dump(mode="json")
    context = {"night": night, "config": config, "targets": night.config.targets}
    if night.data:
        context |= _data_context(night.data)
    if not night.candidate:
        return context | {"steps": DRIFT_STEPS}
    made, advice = night.candidate, advise(night)
    evaluations = {"float": made.original, "int8": made.int8, **made.float_files}
    return context | {
        "made": made,
        "evaluations": evaluations,
        "agreement": made.agreement(),
        "advice": advice,
        "sections": [section for section in _SECTIONS if section[0] != "advice" or advice],
        "formats": list(dict.fromkeys([*evaluations, *made.converted.models])),
        "training": list(flat(config["train"])),
        "versions": installed_versions(),
        "stage_seconds": {
            "training": made.trained.seconds,
            "evaluation": sum(one.seconds for one in evaluations.values()),
        },
        "responsible_use": RESPONSIBLE_USE,
    }


def _past_context(past: Sequence[PastNight], champion: str | None) -> dict[str, Any]:
    return {"past": past, "champion": champion, "trends": trends(past, champion)}


def _data_context(data: PreparedData) -> dict[str, Any]:
    metadata = json.loads(data.metadata_path.read_text())
    per_source = metadata.get("counts_per_source", {})
    return {
        "by_source": [
            (split, source, counts)
            for split, sources in per_source.items()
            for source, counts in sources.items()
        ],
        "warnings": metadata.get("warnings", []),
        "notes": metadata.get("notes", []),
        "audit": _audit(metadata),
        "shortcuts": _shortcuts(metadata),
        "SHORTCUT_FIGURES": FIGURES,
    }


def _audit(metadata: dict[str, Any]) -> list[tuple[str, Any]]:
    """Counts of what was read, dropped and found; lists become their length. Shortcuts have a table."""
    found = {name: metadata[name] for name in ("read", "dropped", "unreadable") if name in metadata}
    found["audit"] = {name: value for name, value in metadata.get("audit", {}).items() if name != "shortcuts"}
    return [
        (path.replace(".", ": "), len(value) if isinstance(value, list) else value)
        for path, value in flat(found)
        if not isinstance(value, dict)
    ]


def _shortcuts(metadata: dict[str, Any]) -> list[Shortcut]:
    """Those that tell most first."""
    told = metadata.get("audit", {}).get("shortcuts", {}).get("shortcuts", ())
    return sorted((Shortcut.model_validate(one) for one in told), key=lambda one: -one.area)


def _write(path: Path, text: str) -> Path:
    write_whole(path, text)
    return path
