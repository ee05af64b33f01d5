"""The report of a diagnosis: in words, as pictures, and as one file to send to a colleague."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from skbi.calibration.classifier import LocalTest
from skbi.calibration.predictive import PredictiveCheck
from skbi.calibration.recovery import Recovery
from skbi.calibration.report import CalibrationReport
from skbi.diagnosis.findings import Finding

__all__ = ["Diagnosis"]

_CAPTIONS = {
    "posterior": "The posterior of the observation. Contours hold 39 % and 86 % of the draws.",
    "predictive": "Data simulated from the posterior and from the prior beside the observation.",
    "local": "Where a classifier finds too much (blue) or too little (red) posterior density.",
    "recovery": "Posterior mean and 90 % interval of simulations against their truths.",
    "contraction": "Posterior z-score against contraction: good posteriors lie right, within 2.",
    "coverage": "How often credible regions hold the truth, against how often they claim to.",
    "ranks": "Ranks of the truths among the draws: level if calibrated.",
    "loss": "Training and held-out loss after each epoch.",
}
_STYLE = """
body { font-family: system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; line-height: 1.45 }
table { border-collapse: collapse; width: 100% } td, th { padding: .35rem .6rem; text-align: left;
  border-bottom: 1px solid #ddd; vertical-align: top }
img { max-width: 100% } figure { margin: 1.5rem 0 } figcaption { color: #555 }
.failed { color: #b03000; font-weight: 600 } .passed { color: #00703c } .none { color: #777 }
pre { overflow-x: auto; font-size: .8rem; background: #f6f6f6; padding: .8rem }
"""
_WORDS = {True: ("passed", "fine"), False: ("failed", "look here"), None: ("none", "not checked")}


@dataclass(eq=False)
class Diagnosis:
    """What `diagnose` found; print it to read a verdict a line, what failed first.

    Attributes
    ----------
    findings : list of Finding
        Each with ``check``, ``passed`` (None if it was not checked), ``verdict`` and ``remedy``.
    calibration : CalibrationReport
        The numbers behind the verdicts on calibration.
    recovery : Recovery
        Posterior mean, sd, interval and rank of the truth of every simulation.
    local : LocalTest or None
        The local test at the observations.
    predictive : list of PredictiveCheck
        Where each observation lies among data simulated from its posterior.
    names : list of str
        Names of the parameters.
    settings : dict of str to str
        Versions, seed, options, numbers of simulations and draws.
    seconds : dict of str to float
        Time of each part.
    """

    findings: list[Finding]
    calibration: CalibrationReport
    recovery: Recovery
    local: LocalTest | None
    predictive: list[PredictiveCheck]
    names: Sequence[str]
    settings: Mapping[str, str]
    seconds: Mapping[str, float]
    displays: Mapping[str, Callable[[], Any]] = field(repr=False)

    @property
    def passed(self) -> bool:
        """Whether no check found anything."""
        return not any(finding.passed is False for finding in self.findings)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The displays by their names, drawn when they are first asked for."""
        return {name: draw() for name, draw in self.displays.items()}

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.findings), self._footer()])

    def _footer(self) -> str:
        n_failed = sum(finding.passed is False for finding in self.findings)
        n = sum(finding.passed is not None for finding in self.findings)
        return (
            f"{n_failed} of {n} checks found something, at a significance of "
            f"{self.settings['significance']} altogether; {len(self.recovery.theta)} simulations, "
            f"{sum(self.seconds.values()):.0f} s."
        )

    def to_html(self, path: Any) -> Path:
        """Write the report, with all pictures inside, as one HTML file.

        Parameters
        ----------
        path : str or path
            Where to write it.

        Returns
        -------
        Path
        """
        path = Path(path)
        path.write_text(self._html(), encoding="utf-8")
        return path

    def _html(self) -> str:
        figures = "".join(
            f"<figure><img alt='{name}' src='data:image/png;base64,{_as_png(display)}'>"
            f"<figcaption>{html.escape(_CAPTIONS[name])}</figcaption></figure>"
            for name, display in self.figures.items()
        )
        seconds = {name: f"{value:.1f} s" for name, value in self.seconds.items()}
        return (
            "<!DOCTYPE html><html lang='en'><meta charset='utf-8'>"
            f"<title>Diagnosis of a posterior</title><style>{_STYLE}</style>"
            f"<h1>Diagnosis of a posterior</h1><p>{html.escape(self._footer())}</p>"
            f"<h2>Verdicts</h2>{self._verdicts()}"
            f"<h2>Calibration</h2><pre>{html.escape(str(self.calibration))}</pre>"
            f"<h2>Pictures</h2>{figures}"
            f"<h2>Settings</h2>{_as_table(self.settings)}"
            f"<h2>Time</h2>{_as_table(seconds)}</html>\n"
        )

    def _verdicts(self) -> str:
        rows = []
        for finding in self.findings:
            kind, word = _WORDS[finding.passed]
            remedy = "" if finding.passed else finding.remedy
            cells = [finding.check, finding.verdict + ".", remedy]
            texts = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            rows.append(f"<tr><td class='{kind}'>{word}</td>{texts}</tr>")
        head = "<tr><th></th><th>check</th><th>verdict</th><th>what to do</th></tr>"
        return f"<table>{head}{''.join(rows)}</table>"


def _as_png(display: Any) -> str:
    """Return a display's figure as the base64 code of a PNG."""
    buffer = io.BytesIO()
    display.figure_.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _as_table(rows: Mapping[str, str]) -> str:
    cells = (
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"
