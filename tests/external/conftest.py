"""Fixtures of the tests about external people."""

import pytest

from tests.clinic import Clinic
from tests.external.desk import Desk, use_settings


@pytest.fixture
def desk(clinic: Clinic) -> Desk:
    """Return a patient with an account, and an admin."""
    return Desk(clinic)


@pytest.fixture
def clinical_off(desk: Desk) -> None:
    """Switch the clinical services off."""
    use_settings(desk.clinic, clinical_services_enabled=False)
