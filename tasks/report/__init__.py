"""What a person reads in the morning: one self-contained page, a short Markdown summary, a model card.

In: `ReportInputs`, the results of the stages; what a run didn't reach is None. Out: `report.html`,
`MODEL_CARD.md`, `model_card.html` and a summary's text; the pages hold their pictures and need no script and
no request to anywhere. `publish` takes them to the store and to Prefect.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from storage.files import replacing
from tasks.prepare import PreparedData
from tasks.report.formats import environment, flat
from tasks.report.inputs import DriftedInputs, Outcome, ReportInputs

__all__ = [
    "DriftedInputs",
    "Outcome",
    "ReportInputs",
    "drift_markdown",
    "installed_versions",
    "model_card_markdown",
    "summary_markdown",
    "write_drift_report",
    "write_model_card",
    "write_report",
]

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
    ("devices", "Devices"),
    ("errors", "Right and wrong"),
    ("int8", "Float against INT8"),
    ("calibration", "Calibration"),
    ("data", "Data"),
    ("training", "Training"),
    ("provenance", "Provenance"),
    ("use", "Responsible use"),
)


def write_report(inputs: ReportInputs, out_dir: Path) -> Path:
    """Write `report.html` into `out_dir`, whole or not at all, and return its path."""
    sections = [section for section in _SECTIONS if section[0] != "advice" or inputs.advice]
    context = _context(inputs)
    page = environment(html=True).get_template("report.html.j2").render(context | {"sections": sections})
    return _write(out_dir / "report.html", page)


def write_drift_report(inputs: DriftedInputs, out_dir: Path) -> Path:
    """Write `report.html` of a night that drift stopped: the data, what has shifted, and what to do."""
    context = {"run": inputs, "steps": DRIFT_STEPS} | _data_context(inputs.data)
    page = environment(html=True).get_template("drifted.html.j2").render(context)
    return _write(out_dir / "report.html", page)


def drift_markdown(inputs: DriftedInputs) -> str:
    """The same without pictures, for Prefect's artifact page."""
    steps = "\n".join(f"{number}. {step}" for number, step in enumerate(DRIFT_STEPS, start=1))
    return f"# Drifted\n\n{inputs.headline}\n\n{steps}\n"


def summary_markdown(inputs: ReportInputs) -> str:
    """The verdict, figures, devices and advice without pictures: a few kB for Prefect's artifact page."""
    return environment(html=False).get_template("summary.md.j2").render(_context(inputs))


def model_card_markdown(inputs: ReportInputs) -> str:
    """Intended use, data, figures and limits of the INT8 model."""
    return environment(html=False).get_template("model_card.md.j2").render(_context(inputs))


def write_model_card(inputs: ReportInputs, out_dir: Path) -> tuple[Path, Path]:
    """Write `MODEL_CARD.md` and `model_card.html` into `out_dir` and return their paths."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    text = model_card_markdown(inputs)
    body = Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))
    page = environment(html=True).get_template("model_card.html.j2").render(body=body, run=inputs)
    return _write(out_dir / "MODEL_CARD.md", text), _write(out_dir / "model_card.html", page)


def installed_versions() -> dict[str, str]:
    """Python and the packages that figures depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def _context(inputs: ReportInputs) -> dict[str, Any]:
    formats = dict.fromkeys([*inputs.evaluations, *inputs.converted.models])
    return {
        "run": inputs,
        "formats": list(formats),
        "training": list(flat(inputs.config.get("train", {}))),
        "responsible_use": RESPONSIBLE_USE,
    } | _data_context(inputs.data)


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
        "audit": _audit(metadata),
    }


def _audit(metadata: dict[str, Any]) -> list[tuple[str, Any]]:
    """Counts of what was read, dropped and found; lists become their length."""
    found = {name: metadata[name] for name in ("read", "dropped", "unreadable", "audit") if name in metadata}
    return [
        (path.replace(".", ": "), len(value) if isinstance(value, list) else value)
        for path, value in flat(found)
        if not isinstance(value, dict)
    ]


def _write(path: Path, text: str) -> Path:
    with replacing(path) as file:
        file.write(text.encode())
    return path
