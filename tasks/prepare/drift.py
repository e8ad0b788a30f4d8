"""Has the data moved away from what the champion learnt?

In: the metadata.json of two prepared data sets. Out: a `DriftReport`: for the class shares and for the
brightness, contrast and sharpness of the images, how far apart the two are. The picture shows both.

The measure is the population stability index, PSI = sum((p - q) ln(p / q)) over bins: below 0.1 nothing to
speak of, above 0.25 a shift (Siddiqi, 2006, "Credit Risk Scorecards"). With few images it is large by
chance: under no shift it follows chi-squared with bins - 1 degrees of freedom times (1/n + 1/m) (Yurdakul,
2018), so a shift must exceed that distribution's 99 % point, too. The effect size beside it is the difference
of the means in standard deviations of the champion's data.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from storage.errors import InputError

STRONG_PSI = 0.25
_SHARES = "class shares"
_BINS = 16
_TOP = {"brightness": 255.0, "contrast": 128.0, "sharpness": 128.0}
_CHI2_99 = 2.326


class DriftConfig(BaseModel):
    """What counts as a shift against the champion's data."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Drift")

    max_psi: float = Field(
        default=STRONG_PSI, gt=0, le=10, description="Population stability index above which data has shifted"
    )
    stop: bool = Field(default=False, description="End the run before training where the data has shifted")


class Shift(BaseModel):
    """One property of the data, the champion's against the new."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    psi: float
    chance: float
    """The PSI that 1 % of samples of these sizes exceed without any shift."""
    reference_mean: float | None
    new_mean: float | None
    effect_size: float | None
    shifted: bool


class DriftReport(BaseModel):
    """The table of a comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    new: str
    shifts: tuple[Shift, ...]

    @property
    def shifted(self) -> tuple[str, ...]:
        """The properties that shifted."""
        return tuple(shift.name for shift in self.shifts if shift.shifted)


def summarise(name: str, values: np.ndarray) -> dict:
    """Mean, standard deviation and histogram of a statistic, in grey levels, for metadata.json."""
    counts = np.histogram(np.clip(values, 0, _TOP[name]), _BINS, (0, _TOP[name]))[0]
    return {"mean": float(values.mean()), "std": float(values.std()), "histogram": counts.tolist()}


def compare(reference: dict, new: dict, config: DriftConfig = DriftConfig()) -> DriftReport:  # noqa: B008 (frozen)
    """Two metadata.json, the champion's first. InputError where they can't be compared."""
    for key in ("code_version", "classes", "label_set", "image_px"):
        if reference.get(key) != new.get(key):
            raise InputError(
                f"drift: {key}: expected the champion's {reference.get(key)}, got {new.get(key)}; "
                "prepare both alike to compare them"
            )
    shares = _shift(_SHARES, _classes(reference), _classes(new), config)
    pairs = ((name, reference["statistics"][name], new["statistics"][name]) for name in _TOP)
    rest = [_shift(name, a["histogram"], b["histogram"], config, a, b) for name, a, b in pairs]
    return DriftReport(reference=reference["fingerprint"], new=new["fingerprint"], shifts=(shares, *rest))


def _counts(metadata: dict, name: str) -> list[int]:
    return _classes(metadata) if name == _SHARES else metadata["statistics"][name]["histogram"]


def _classes(metadata: dict) -> list[int]:
    """Real images of each class over all splits."""
    counts = metadata["counts"]
    return [sum(counts[split][name] for split in ("train", "val", "test")) for name in metadata["classes"]]


def _shift(name: str, before: list[int], after: list[int], config: DriftConfig, a=None, b=None) -> Shift:
    p, q = np.array(before, float), np.array(after, float)
    used = (p + q) > 0
    p, q = p[used] + 0.5, q[used] + 0.5
    n, m = p.sum(), q.sum()
    psi = float(((p / n - q / m) * np.log((p / n) / (q / m))).sum())
    chance = _chi_squared(len(p) - 1) * (1 / n + 1 / m)
    effect = (b["mean"] - a["mean"]) / max(a["std"], 1e-6) if a else None
    return Shift(
        name=name,
        psi=psi,
        chance=chance,
        reference_mean=a and a["mean"],
        new_mean=b and b["mean"],
        effect_size=effect,
        shifted=psi > config.max_psi and psi > chance,
    )


def _chi_squared(freedom: int) -> float:
    """99 % point of chi-squared, by Wilson and Hilferty's cube (1931), good to 1 % from one degree on."""
    k = max(freedom, 1)
    return k * (1 - 2 / (9 * k) + _CHI2_99 * (2 / (9 * k)) ** 0.5) ** 3


def draw_drift(reference: dict, new: dict, path: Path) -> Path:
    """Class shares and the three histograms, champion's and new, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, 4), (_SHARES, *_TOP), strict=True):
        for place, (label, metadata) in enumerate((("champion's data", reference), ("new data", new))):
            counts = _counts(metadata, name)
            bins = np.arange(len(counts))
            axes.bar(bins + 0.4 * place, np.array(counts) / max(sum(counts), 1), 0.4, label=label)
        if name == _SHARES:
            axes.set_xticks(bins + 0.2, metadata["classes"], rotation=45)
            axes.legend(frameon=False, fontsize=8)
        else:
            axes.set_xticks(np.linspace(-0.3, _BINS - 0.3, 5), np.linspace(0, _TOP[name], 5).astype(int))
            axes.set_xlabel("grey levels")
        axes.set_title(name)
    figure.savefig(path, dpi=80)
    return path
