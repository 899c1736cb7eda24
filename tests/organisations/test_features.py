"""What an organisation's clients show: known keys, switched twice without harm."""

from typing import Any

from tests.clinic import Clinic


def test_feature_is_switched_on_and_off_and_clients_see_it_at_the_next_call(clinic: Clinic) -> None:
    admin = clinic.admin()
    place = clinic.organisation()
    member = clinic.clinician(place)
    url = f"/api/organizations/{place}/features"

    def switch(*, enabled: bool) -> Any:
        return admin.put(f"{url}/teaching", json={"enabled": enabled}).json()

    assert switch(enabled=True) == {"status": "enabled"}
    assert switch(enabled=True) == {"status": "already_enabled"}
    admin.put(f"{url}/epr", json={"enabled": True})
    found = admin.get(url).json()["features"]
    assert [row["feature_key"] for row in found] == ["epr", "teaching"], "ordered by key"
    assert found[0]["enabled_by"] == admin.id
    assert found[0]["enabled_at"].endswith("Z")
    assert member.get("/api/auth/me").json()["enabled_features"] == ["epr", "teaching"]
    assert switch(enabled=False) == {"status": "disabled"}
    assert switch(enabled=False) == {"status": "already_disabled"}
    assert member.get("/api/auth/me").json()["enabled_features"] == ["epr"]


def test_unknown_key_is_422(clinic: Clinic) -> None:
    """gap: any key accepted; over 50 characters is a 500."""
    admin = clinic.admin()
    url = f"/api/organizations/{clinic.organisation()}/features"
    for key in ("spaceship", "EPR", "x" * 51, "epr%20"):
        for enabled in (True, False):
            assert admin.put(f"{url}/{key}", json={"enabled": enabled}).status_code == 422
    assert admin.get(url).json() == {"features": []}


BAD_SWITCHES: list[Any] = [{}, {"enabled": None}, {"enabled": "perhaps"}, {"enabled": True, "by": 1}, []]


def test_bad_switch_is_422(clinic: Clinic) -> None:
    admin = clinic.admin()
    url = f"/api/organizations/{clinic.organisation()}/features"
    for body in BAD_SWITCHES:
        assert admin.put(f"{url}/epr", json=body).status_code == 422
        assert admin.get(url).json() == {"features": []}


def test_who_switched_it_off_stays_in_the_audit_trail(clinic: Clinic) -> None:
    """gap: disabling deletes the row and that history."""
    admin = clinic.admin()
    place = clinic.organisation()
    for enabled in (True, False):
        admin.put(f"/api/organizations/{place}/features/epr", json={"enabled": enabled})
    rows = clinic.audited("feature:change")
    assert [(row.actor_user_id, row.reason, row.subject) for row in rows] == [
        (admin.id, "enabled", f"organisation:{place}/feature:epr"),
        (admin.id, "disabled", f"organisation:{place}/feature:epr"),
    ]
