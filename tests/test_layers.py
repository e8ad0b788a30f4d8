"""The import rule: flows → tasks → storage, deployments. Never back."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "flows": {"flows", "tasks", "storage", "deployments"},
    "tasks": {"tasks", "storage", "deployments"},
    "deployments": {"deployments", "storage.errors"},
    "storage": {"storage"},
}
ONLY_IN = {
    # the client of real devices, and the server that the demo has instead of one
    "paramiko": ("deployments/ssh.py", "deployments/demo_device.py"),
    "tensorflow": ("tasks/train", "tasks/evaluate", "tasks/convert"),
    "keras": ("tasks/train", "tasks/evaluate", "tasks/convert"),
}


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Every module that the file imports, and whether it does so when it is itself imported."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; name the package"
            found.append((node.module, id(node) not in inside))
    return found


def _sources(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_what_stands_to_its_right(layer):
    assert _sources(layer)
    for path in _sources(layer):
        for module, _ in _imports(path):
            if module.split(".")[0] in MAY_IMPORT:
                allowed = any(module == m or module.startswith(f"{m}.") for m in MAY_IMPORT[layer])
                assert allowed, f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_heavy_library_is_imported_only_by_its_own_stages(library):
    users = set()
    for layer in MAY_IMPORT:
        for path in _sources(layer):
            if any(module.split(".")[0] == library for module, _ in _imports(path)):
                users.add(path.relative_to(ROOT).as_posix())
    stray = {user for user in users if not user.startswith(ONLY_IN[library])}
    assert users and not stray


@pytest.mark.parametrize("library", ["tensorflow", "keras"])
def test_tensorflow_is_never_imported_when_a_module_is_imported(library):
    for path in [p for layer in MAY_IMPORT for p in _sources(layer)]:
        at_import = [m for m, eager in _imports(path) if eager and m.split(".")[0] == library]
        assert not at_import, f"{path.relative_to(ROOT)} imports {at_import} at its top"


def test_prefect_stays_out_of_storage_and_deployments():
    for path in _sources("storage") + _sources("deployments"):
        assert "prefect" not in {m.split(".")[0] for m, _ in _imports(path)}, path


def test_the_top_level_is_the_users_card():
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert folders == {"flows", "tasks", "storage", "deployments", "tests"}
