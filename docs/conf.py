"""The site of skbi: ``sphinx-build -W --keep-going docs docs/_build/html``.

The pages are plain Markdown that also reads well where it lies. What only a site needs is added
here: the menu, the gallery of examples with their pictures, and the changelog and the table of
defaults, which lie outside of this folder. Examples are not run: they take minutes each, and their
pictures are kept in examples/pictures.
"""

import re
import shutil
from pathlib import Path

import skbi

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
PAGES = {
    "Start": ["install", "first-posterior", "choose", "which-model", "gallery/index"],
    "Your problem": ["prior", "simulator", "failures", "data", "missing-days"],
    "The answer": ["posterior", "trust", "forecast", "rounds", "scale"],
    "From elsewhere": ["from-scikit-learn", "from-sbi", "from-bayesflow", "questions"],
    "Background": ["how-it-works", "methods", "accuracy", "outside/defaults", "glossary"],
    "Reference": ["api", "outside/changelog", "contributing"],
}
OUTSIDE = {  # of this folder: page -> file
    "outside/changelog": "../CHANGELOG.md",
    "outside/defaults": "../examples/benchmarks/DEFAULTS.md",
}

project, author = "skbi", "The skbi developers"
copyright = author
version = release = skbi.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/sg_execution_times.rst", "sg_execution_times.rst"]
templates_path = ["_templates"]
default_role = "autolink"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autodoc_typehints = "none"  # the docstrings have the types, with shapes
autosummary_generate = ["api.rst"]
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "plot_gallery": False,
    "ignore_pattern": "benchmarks",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1e9,
}

html_theme = "pydata_sphinx_theme"
html_title = "skbi"
html_static_path = ["_static"]
html_css_files = ["skbi.css"]
html_show_sourcelink = False
html_sidebars = {"**": ["menu"]}
html_theme_options = {
    "navbar_center": [],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def pictures_of(example):
    """Return the pictures that an example draws, the posterior first."""
    found = sorted(EXAMPLES.glob(f"pictures/{example}*.png"))
    return sorted(found, key=lambda path: "posterior" not in path.name)


def copy_outside(app):
    """Copy the pages that lie outside of this folder."""
    for page, source in OUTSIDE.items():
        path = HERE / f"{page}.md"
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(HERE / source, path)


def copy_thumbnails(app):
    """Give each example its first picture in the gallery."""
    for path in EXAMPLES.glob("*.py"):
        for picture in pictures_of(path.stem)[:1]:
            shutil.copyfile(picture, HERE / f"gallery/images/thumb/sphx_glr_{path.stem}_thumb.png")


def complete(app, name, source):
    """Add the menu to the front page, and the pictures to examples; turn links to pages."""
    text, gallery = source[0], name.startswith("gallery/")
    if gallery and (pictures := pictures_of(name.removeprefix("gallery/"))):
        words, mark, code = text.rpartition(".. GENERATED FROM PYTHON SOURCE LINES")
        images = [f".. image:: ../../examples/pictures/{path.name}" for path in pictures]
        text = "\n\n".join([words, *images, mark + code])
    if not gallery:
        for page, path in OUTSIDE.items():
            text = text.replace(f"({path}", f"({page}.md")
        text = text.replace("(../examples)", "(gallery/index.rst)")
        text = re.sub(r"\(\.\./examples/(\w+)\.py\)", r"(gallery/\1.rst)", text)
    if name == "index":
        for caption, pages in PAGES.items():
            lines = "\n".join([f":caption: {caption}", ":hidden:", "", *pages])
            text += f"\n```{{toctree}}\n{lines}\n```\n"
    source[0] = text


def skip_inherited(app, what, name, member, skip, options):
    """Leave out what skbi's classes inherit from scikit-learn and torch."""
    module = getattr(member, "__module__", None) or "skbi"
    return True if not module.startswith("skbi") else None


def setup(app):
    """Connect the functions above."""
    app.connect("builder-inited", copy_outside)
    app.connect("builder-inited", copy_thumbnails, priority=900)  # after sphinx-gallery
    app.connect("source-read", complete)
    app.connect("autodoc-skip-member", skip_inherited)
