"""Do the tests notice faults? Seeds small ones into a file, one at a time, and runs that file's tests.

    python -m tests.benchmarks.mutants tasks/gate.py tests/tasks/test_gate.py [more tests] --faults 40

Works on a copy of the checkout. Prints every fault that no test noticed, and how many were noticed. A fault
that hangs the tests counts as noticed.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flows.up import ROOT

_OPPOSITE: dict[type[ast.AST], Any] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult,
}  # fmt: skip


def main() -> int:
    """Exit status 1 where fewer than nine in ten faults were noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout-s", type=float, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "checkout"
        shutil.copytree(
            ROOT, copied, symlinks=True, ignore=shutil.ignore_patterns(".*", "stress-vision-demo")
        )
        original = (copied / options.file).read_text()
        if not passes(copied, options.tests, options.timeout_s):
            raise SystemExit(f"without a fault, too, the tests fail or take over {options.timeout_s:g} s")
        faults = list(places(ast.parse(original)))
        chosen = random.Random(options.seed).sample(faults, min(options.faults, len(faults)))
        missed = 0
        for fault in chosen:
            what, source = seeded(original, *fault)
            (copied / options.file).write_text(source)
            if passes(copied, options.tests, options.timeout_s):
                missed += 1
                print(f"not noticed: {options.file}:{what}", flush=True)
    print(f"{options.file}: {len(chosen) - missed} of {len(chosen)} faults noticed, {len(faults)} possible")
    return int(missed * 10 > len(chosen))


def passes(checkout: Path, tests: list[str], timeout_s: float) -> bool:
    """Whether the tests pass there within the time."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def places(tree: ast.Module) -> Iterator[tuple[int, Callable[[ast.AST], bool]]]:
    """Which node, counted as `ast.walk` goes, can have which fault."""
    for place, node in enumerate(ast.walk(tree)):
        for fault in (opposite, negated, one_more, nothing_returned):
            if fault(copy.deepcopy(node)):
                yield place, fault


def seeded(source: str, place: int, fault: Callable[[ast.AST], bool]) -> tuple[str, str]:
    """Line and change, and the source with that fault."""
    tree = ast.parse(source)
    node = list(ast.walk(tree))[place]
    before = ast.unparse(node).splitlines()[0]
    fault(node)
    after = ast.unparse(node).splitlines()[0]
    return f"{getattr(node, 'lineno', 0)} {before} -> {after}", ast.unparse(tree)


def opposite(node: ast.AST) -> bool:
    """An operator becomes its opposite."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _OPPOSITE:
        node.ops[0] = _OPPOSITE[type(node.ops[0])]()
        return True
    if isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in _OPPOSITE:
        node.op = _OPPOSITE[type(node.op)]()
        return True
    return False


def negated(node: ast.AST) -> bool:
    """A condition becomes its opposite."""
    if isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Compare):
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return True
    return False


def one_more(node: ast.AST) -> bool:
    """A number grows by one, a flag is turned."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
        return True
    return False


def nothing_returned(node: ast.AST) -> bool:
    """A result is lost."""
    if isinstance(node, ast.Return) and node.value is not None:
        node.value = ast.Constant(None)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
