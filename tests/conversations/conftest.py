"""Fixtures of the tests about conversations."""

import pytest

from tests.clinic import Clinic
from tests.conversations.talk import Surgery, surgery


@pytest.fixture
def place(clinic: Clinic) -> Surgery:
    """Return a surgery with a patient, a doctor and a nurse."""
    return surgery(clinic)
