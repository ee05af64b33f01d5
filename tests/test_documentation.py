"""Blocks of the pages run, their links lead somewhere, and the reference has all public names.

Each block of Python in README.md and docs/ is run. The blocks of a page share their names and run
in order, in an empty folder. A page shows sizes that make sense; here it is run small:

1. Whole numbers above 100 in the text of a block become 100 (so that sizes still fit each other).
2. ``n_jobs=`` becomes 1, and every fit has one member and ends after one epoch. User warnings of
   such a fit are left out; all other warnings are errors, as everywhere in the tests.

A block below the comment ``<!-- not run: NAME -->`` is of the package NAME, and is not run.
"""

import importlib
import re
import warnings
from pathlib import Path
from unittest import mock

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

import skbi
from skbi.estimators.base import BaseSBIEstimator

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: \w+ -->\n+)?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])\d[\d_]*(?![\w.])")
LARGEST = 100

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(page):
    """Return the blocks of a page that are run: (line, code)."""
    text = page.read_text()
    return [
        (text[: found.start(2)].count("\n"), found[2])
        for found in BLOCK.finditer(text)
        if not found[1]
    ]


def shrink(code):
    """Make a block small, by the rules above."""
    code = re.sub(r"n_jobs=-?\d+", "n_jobs=1", code)
    return NUMBER.sub(lambda found: str(min(int(found[0]), LARGEST)), code)


def fit_small(self, *args, fit=BaseSBIEstimator.fit, **kwargs):
    """Fit one member for one epoch, and leave the options as they were."""
    options = {"max_iter": self.max_iter, "n_estimators": self.n_estimators}
    self.max_iter = self.n_estimators = 1
    try:
        return fit(self, *args, **kwargs)
    finally:
        vars(self).update(options)


@pages
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    names = {"__name__": "__main__"}
    with (
        mock.patch.object(BaseSBIEstimator, "fit", fit_small),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)
        for line, code in blocks(page):
            exec(compile("\n" * line + shrink(code), str(page), "exec"), names)
    plt.close("all")


def anchors(page):
    """Return the anchors of a page's headings, as code hosts and the site make them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pages
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text())):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            other = (page.parent / path).resolve() if path else page
            assert other.exists(), target
            assert not anchor or anchor in anchors(other), target


def test_every_page_is_in_the_menu():
    menu = (ROOT / "docs" / "conf.py").read_text()
    front = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        if page.stem != "index":
            assert f'"{page.stem}"' in menu, page
            assert f"({page.name})" in front, page


def test_every_public_name_is_in_the_reference():
    _, *sections = re.split(r"currentmodule:: ([\w.]+)", (ROOT / "docs" / "api.rst").read_text())
    listed = {
        module: set(re.findall(r"^   (\w+)$", text, re.MULTILINE))
        for module, text in zip(sections[::2], sections[1::2], strict=True)
    }
    assert listed["skbi"] == set(skbi.__all__) - {"TRUSTED_TYPES"}
    folders = {path.parent.name for path in Path(skbi.__file__).parent.glob("*/__init__.py")}
    for folder in folders:
        names = set(importlib.import_module(f"skbi.{folder}").__all__) - listed["skbi"]
        assert listed.get(f"skbi.{folder}", set()) == names, folder


def test_every_example_has_its_picture_and_its_time():
    for path in (ROOT / "examples").glob("*.py"):
        words = path.read_text().split('"""')[1]
        assert "minute" in words, path
        assert "dask" in path.name or [*path.parent.glob(f"pictures/{path.stem}*.png")], path
