"""docs/reference.md says what the code does."""

from tests.reference import PATH, reference


def test_the_reference_is_the_code_s() -> None:
    assert PATH.read_text(encoding="utf-8") == reference(), "run python -m tests.reference"
