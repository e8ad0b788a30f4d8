"""The import rule: flows → tasks → storage, deployments. Never back."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "flows": {"flows", "tasks", "storage", "deployments"},
    "tasks": {"tasks", "storage", "deployments"},
    "deployments": {"deployments", "storage.errors", "storage.files"},
    "storage": {"storage"},
}
ONLY_IN = {
    # the client of real devices, and the server that the demo has instead of one
    "paramiko": ("deployments/ssh.py", "deployments/demo_device.py"),
    "tensorflow": ("tasks/tensorflow_start.py", "tasks/train", "tasks/evaluate", "tasks/convert"),
    "keras": ("tasks/train", "tasks/evaluate", "tasks/convert"),
}


def _imports(path: Path) -> list[str]:
    """Every module that the file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; name the package"
            found.append(node.module)
    return found


def _modules_named_in(path: Path) -> set[str]:
    """As `_imports`, and `a.b.c` for `from a.b import c`, in case that is a module."""
    froms = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {*_imports(path), *(f"{node.module}.{alias.name}" for node in froms for alias in node.names)}


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _sources(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_what_stands_to_its_right(layer):
    assert _sources(layer)
    for path in _sources(layer):
        for module in _imports(path):
            if module.split(".")[0] in MAY_IMPORT:
                allowed = any(module == m or module.startswith(f"{m}.") for m in MAY_IMPORT[layer])
                assert allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_no_two_modules_import_each_other_not_even_inside_functions() -> None:
    """A package stands for its `__init__`: what it offers is there before its modules are read."""
    modules = {_module(path): path for layer in MAY_IMPORT for path in _sources(layer)}
    imports = {
        name: {module for module in _modules_named_in(path) if module in modules}
        for name, path in modules.items()
    }
    assert len(modules) > 80
    list(TopologicalSorter(imports).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_heavy_library_is_imported_only_by_its_own_stages(library):
    users = set()
    for layer in MAY_IMPORT:
        for path in _sources(layer):
            if any(module.split(".")[0] == library for module in _imports(path)):
                users.add(path.relative_to(ROOT).as_posix())
    stray = {user for user in users if not user.startswith(ONLY_IN[library])}
    assert users and not stray


def test_the_flows_and_the_command_line_start_without_tensorflow():
    check = "import sys, flows.cli, flows.retrain, flows.demo; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, timeout=300, check=False).returncode == 0


def test_prefect_stays_out_of_storage_and_deployments():
    for path in _sources("storage") + _sources("deployments"):
        assert "prefect" not in {m.split(".")[0] for m in _imports(path)}, path


def test_the_top_level_is_the_users_card():
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert folders == {"flows", "tasks", "storage", "deployments", "tests"}
