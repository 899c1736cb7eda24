"""An embedded openEHR store that takes in compositions kept elsewhere until now, as they are."""

import itertools
from collections.abc import Sequence

import sqlalchemy as sa

from quill.adapters.openehr.embedded import EmbeddedOpenEhrStore
from quill.adapters.openehr.models import Composition
from quill.adapters.openehr.uids import Uid, parse_uid, template_id_of, unknown_template
from quill.errors import OpenEhrRefused, StaleEdit
from quill.kit.documents import dumps
from quill.ports.openehr import StoredComposition


class TakingInOpenEhrStore(EmbeddedOpenEhrStore):
    """The embedded store, with a door for whole versions."""

    async def import_versions(self, ehr_id: str, versions: Sequence[StoredComposition]) -> None:
        """Take in further versions of one composition as they are: uids and times of commit are kept.

        Args:
            ehr_id: an EHR of this store.
            versions: oldest first, all later than what is here of the composition.

        Raises:
            StaleEdit: 412, they do not follow what is here, or another EHR has the composition.
            InvalidRecord: 422, a template is not known.
            OpenEhrRefused: 502, there is no such EHR.
        """
        await self._check_ehr(ehr_id)
        uids = [_parsed(version) for version in versions]
        newest = sa.select(Composition.version, Composition.ehr_id).where(
            Composition.object_id == uids[0].object_id, Composition.is_latest
        )
        held = await self._rows(newest.with_for_update())
        if held and held[0].ehr_id != ehr_id:
            raise StaleEdit
        numbers = [held[0].version if held else 0, *(version.version for version in versions)]
        if any(following <= number for number, following in itertools.pairwise(numbers)):
            raise StaleEdit
        for version, uid in zip(versions, uids, strict=True):
            await self._take_in(ehr_id, version, uid)

    async def _take_in(self, ehr_id: str, stored: StoredComposition, uid: Uid) -> None:
        if await self.find_template(template_id_of(stored.document)) is None:
            raise unknown_template()
        row = self._row(ehr_id, stored.document, uid.object_id, stored.version)
        if not stored.document.get("context"):
            row["started_at"] = stored.committed_at
        row |= {"system_id": uid.system_id, "committed_at": stored.committed_at, "document": dumps(stored.document)}
        await self._outdate(uid.object_id)
        if not await self._add(Composition, row):
            raise StaleEdit


def _parsed(version: StoredComposition) -> Uid:
    uid = parse_uid(version.uid)
    if uid is None or uid.version != version.version:
        raise OpenEhrRefused
    return uid
