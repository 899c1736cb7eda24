"""Decision records keep their form, so that the log can be read from end to end."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

RECORDS = sorted((Path(__file__).resolve().parents[2] / "docs" / "decisions").glob("*.md"))
SECTIONS = ["Context", "Decision", "Consequences", "Alternatives", "How it is enforced"]
A_PAGE_IN_LINES = 60
LONGEST_LINE = 120


def test_numbers_are_unique_and_without_gaps() -> None:
    numbers = [int(record.name[:4]) for record in RECORDS]
    assert numbers == list(range(1, len(RECORDS) + 1))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
class TestRecord:
    def test_title_carries_the_number_of_the_file(self, record: Path) -> None:
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", record.name)
        assert record.read_text().startswith(f"# {record.name[:4]} ")

    def test_all_sections_are_there_in_order_and_not_empty(self, record: Path) -> None:
        headings = list(re.finditer(r"^## (.+)$", record.read_text(), flags=re.MULTILINE))
        assert [heading.group(1) for heading in headings] == SECTIONS
        for heading, following in pairwise([*headings, None]):
            assert heading is not None
            end = following.start() if following else len(record.read_text())
            assert record.read_text()[heading.end() : end].strip(), heading.group(1)

    def test_it_fits_a_page(self, record: Path) -> None:
        lines = record.read_text().splitlines()
        assert len(lines) <= A_PAGE_IN_LINES
        assert max(map(len, lines)) <= LONGEST_LINE

    def test_files_it_refers_to_exist(self, record: Path) -> None:
        for target in re.findall(r"\]\(([^)#]+)\)", record.read_text()):
            assert (record.parent / target).exists(), target
