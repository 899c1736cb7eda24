"""The main job works from end to end, and the page that tells of it tells the truth."""

from pathlib import Path

from tests.journeys.tour import INVENTED, ROOT, SYNTHEA, Tour


def test_main_job_runs_on_invented_patients(tmp_path: Path) -> None:
    assert "intact" in Tour(tmp_path, INVENTED).walk()


def test_page_is_what_the_tour_sees(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tour.md").read_text()
    if SYNTHEA.exists():
        assert Tour(tmp_path, SYNTHEA).walk() == page
    else:
        # The real patients are not part of the repository; the page must at least be the output of this script.
        assert page.startswith("# A tour") and "307 read: 307 imported" in page
