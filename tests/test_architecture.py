"""The tree is the way of the data: a file imports from its own floor and the floors above it."""

import ast
from pathlib import Path

import pytest

import skbi

PACKAGE = Path(skbi.__file__).parent
# what each floor may import of skbi besides itself, and of the outside; "" are the files on top
TOP = {"randomness", "parallel"}
INSIDE = {
    "": TOP,
    "priors": TOP,
    "simulation": {*TOP, "priors"},
    "preprocessing": {*TOP, "priors"},
    "networks": set(),
    "flows": {"networks"},
    "training": {"flows"},
    "samplers": {*TOP, "priors"},
    "estimators": {
        *TOP, "priors", "simulation", "preprocessing", "networks", "flows", "training", "samplers",
    },
    "calibration": {*TOP, "priors", "simulation"},  # estimators are duck-typed
    "analysis": {*TOP, "priors", "samplers", "calibration"},
    "plotting": {*TOP, "calibration", "analysis"},
    "diagnosis": {*TOP, "calibration", "plotting"},
}  # fmt: skip
OUTSIDE = {
    "": {"numpy", "torch", "joblib", "threadpoolctl"},
    "priors": {"numpy", "scipy", "torch"},  # whose distributions are taken
    "simulation": {"numpy", "scipy", "sklearn", "joblib", "tqdm"},
    "preprocessing": {"numpy", "scipy", "sklearn", "torch"},
    "networks": {"torch"},
    "flows": {"numpy", "torch"},
    "training": {"numpy", "torch", "sklearn", "tqdm"},
    "samplers": {"numpy", "scipy", "arviz_stats", "dynesty", "joblib", "tqdm"},
    "estimators": {"numpy", "scipy", "torch", "sklearn", "tqdm"},
    "calibration": {"numpy", "scipy", "sklearn", "joblib", "threadpoolctl", "tqdm"},
    "analysis": {"numpy", "scipy", "pandas", "arviz_base"},
    "plotting": {"numpy", "scipy", "sklearn", "matplotlib", "corner"},
    "diagnosis": {"numpy", "scipy", "sklearn", "torch", "tqdm"},
}
STANDARD = {
    "__future__", "abc", "ast", "base64", "collections", "concurrent", "contextlib", "copy",
    "dataclasses", "faulthandler", "functools", "hashlib", "html", "inspect", "io", "itertools",
    "json", "math", "mmap", "multiprocessing", "numbers", "operator", "os", "pathlib",
    "platform", "queue", "random", "re", "shutil", "signal", "sys", "threading", "time",
    "traceback", "types", "typing", "warnings", "zipfile",
}  # fmt: skip
MAX_LINES = 500

FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
MODULES = [path for path in FILES if path.name != "__init__.py"]
modules = pytest.mark.parametrize("path", MODULES, ids=str)


def floor_of(path):
    """Name the folder of a file, "" for those on top."""
    return path.parent.as_posix().replace(".", "")


def imports(path):
    """Yield what a file imports: (module, names)."""
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, [alias.name for alias in node.names]


def test_every_folder_is_a_floor():
    assert {floor_of(path) for path in FILES} == set(INSIDE)
    assert {path.stem for path in MODULES if not floor_of(path)} == TOP


@modules
def test_imports_point_upwards(path):
    found = {module for module, _ in imports(path)}
    inside = {module.split(".")[1] for module in found if module.startswith("skbi.")}
    outside = {module.split(".")[0] for module in found} - {"skbi"}
    floor = floor_of(path)
    assert inside <= INSIDE[floor] | {floor}
    assert outside <= OUTSIDE[floor] | STANDARD


def test_no_file_imports_in_a_circle():
    """Neither between folders nor inside one: files can be put in an order."""
    files = {f"skbi.{'.'.join(path.with_suffix('').parts)}": path for path in MODULES}
    packages = {f"skbi.{floor}" for floor in INSIDE if floor}
    needs = {}
    for name, path in files.items():
        needs[name] = {module for module, _ in imports(path) if module in files}
        for module, _ in imports(path):
            if module in packages:  # a floor's public names, which come from all its files
                assert module != name.rpartition(".")[0], f"{name} imports its own folder"
                needs[name] |= {other for other in files if other.startswith(module + ".")}
    done = set()
    while len(done) < len(files):
        ready = {name for name in files if name not in done and needs[name] <= done}
        assert ready, f"a circle among {sorted(set(files) - done)}"
        done |= ready


@modules
def test_no_file_imports_a_private_name_of_another(path):
    private = [
        f"{module}.{name}"
        for module, names in imports(path)
        if module.startswith("skbi")
        for name in names
        if name.startswith("_") and not name.startswith("__")
    ]
    assert not private


@modules
def test_files_are_short(path):
    assert len((PACKAGE / path).read_text().splitlines()) <= MAX_LINES


@modules
def test_every_file_is_tested(path):
    assert (Path(__file__).parent / path.parent / f"test_{path.name}").exists()


def test_the_package_is_imported_from_a_source_tree_without_being_installed():
    """A cluster's PYTHONPATH has no metadata."""
    names = [module for path in FILES for module, _ in imports(path)]
    assert not [name for name in names if name.startswith("importlib")]


def test_public_names_are_documented_with_an_example():
    for name in skbi.__all__:
        if name not in ("Prior", "TRUSTED_TYPES"):
            assert ">>>" in getattr(skbi, name).__doc__, name
