"""Findings: what each check says, in words, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Finding", "describe_p", "in_order"]

_MARKS = {True: "[ok]", False: "[!!]", None: "[--]"}


@dataclass(frozen=True)
class Finding:
    """The verdict of one check.

    Attributes
    ----------
    check : str
        What was checked.
    passed : bool or None
        None if it was not checked.
    verdict : str
        What was found.
    remedy : str
        What to do about it; empty if nothing.
    """

    check: str
    passed: bool | None
    verdict: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{_MARKS[self.passed]} {self.check}: {self.verdict}."
        return f"{text} {self.remedy}" if self.remedy and self.passed is not True else text


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings: what failed first, then what passed, then what was not checked."""
    return sorted(findings, key=lambda f: {False: 0, True: 1, None: 2}[f.passed])


def describe_p(p_value: float) -> str:
    """Write a p-value with two digits."""
    return "p < 1e-10" if p_value < 1e-10 else f"p = {p_value:.2g}"
