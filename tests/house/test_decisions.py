"""Records of decisions."""

from collections import Counter
from pathlib import Path

DECISIONS = Path(__file__).resolve().parents[2] / "docs" / "decisions"


def test_each_decision_has_a_number_of_its_own():
    """Four digits, and no two alike: a decision is cited by its number."""
    numbers = Counter(page.name[:4] for page in DECISIONS.glob("*.md"))
    assert all(number.isdigit() for number in numbers)
    assert [number for number, count in numbers.items() if count > 1] == []
