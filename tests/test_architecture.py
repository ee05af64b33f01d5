"""The tree is the dependency order: each file of skbi imports only what stands above it."""

import ast
from pathlib import Path

import pytest

import skbi

PACKAGE = Path(skbi.__file__).parent
# what each file may import from skbi, and of the outside what only it (or few) may
INSIDE = {
    "_data": set(),
    "priors": set(),
    "simulators": {"priors"},
    "_tasks": {"simulators"},
    "_store": {"_tasks"},
    "simulation": {"priors", "simulators", "_tasks", "_store"},
    "networks": set(),
    "flows": {"networks"},
    "training": set(),
    "maps": {"_data", "priors"},
    "base": {"_data", "priors", "flows", "training", "maps"},
    "npe": {"_data", "priors", "networks", "flows", "training", "maps", "base"},
    "rounds": {"_data", "priors", "simulation", "base", "npe"},
    "samplers": {"priors"},
    "nle": {"_data", "priors", "networks", "flows", "training", "maps", "base", "samplers"},
    "calibration": {"priors", "simulation", "training", "base"},
    "plotting": {"calibration", "priors"},
}
OUTSIDE = {
    "_data": {"numpy", "torch", "sklearn"},
    "priors": {"numpy", "scipy"},
    "simulators": {"numpy", "scipy", "sklearn"},
    "_tasks": {"numpy"},
    "_store": {"numpy", "joblib"},
    "simulation": {"numpy", "scipy", "joblib", "tqdm"},
    "networks": {"torch"},
    "flows": {"numpy", "torch"},
    "training": {"numpy", "torch", "joblib", "sklearn", "tqdm"},
    "maps": {"numpy", "scipy", "torch"},
    "samplers": {"numpy", "scipy", "dynesty", "tqdm"},
    "calibration": {"numpy", "scipy", "sklearn", "joblib", "threadpoolctl", "tqdm"},
    "plotting": {"numpy", "scipy", "sklearn", "matplotlib", "corner"},
}
STANDARD = {
    "__future__", "abc", "collections", "concurrent", "contextlib", "copy", "dataclasses",
    "faulthandler", "functools", "hashlib", "importlib", "inspect", "itertools", "json", "math",
    "mmap",
    "multiprocessing", "numbers", "os", "pathlib", "queue", "shutil", "signal", "threading", "time",
    "traceback", "types", "typing", "warnings", "zipfile",
}  # fmt: skip


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_every_file_is_in_the_table():
    assert {f.stem for f in PACKAGE.glob("*.py")} == {"__init__", *INSIDE}


@pytest.mark.parametrize("name", INSIDE)
def test_imports_point_upwards(name):
    found = set(imports(PACKAGE / f"{name}.py"))
    inside = {module.split(".")[1] for module in found if module.startswith("skbi.")}
    outside = {module.split(".")[0] for module in found if not module.startswith("skbi")}
    assert inside <= INSIDE[name]
    if name in OUTSIDE:
        assert outside <= OUTSIDE[name] | STANDARD


@pytest.mark.parametrize("name", INSIDE)
def test_every_file_is_tested(name):
    assert (Path(__file__).parent / f"test_{name.strip('_')}.py").exists()


def test_public_names_are_documented_with_an_example():
    for name in skbi.__all__:
        if name != "Prior":
            assert ">>>" in getattr(skbi, name).__doc__, name
