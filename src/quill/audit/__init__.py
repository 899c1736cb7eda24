"""The audit trail: who did what kind of act about which patient, with what outcome and when; never contents.

Append-only. A write puts its row into its own transaction, reads are written in groups before their answers leave,
refusals survive the refusal. Seals over the rows make edits, deletions and reordering show (``quill audit verify``).
No feature reads the trail. Depends on the unit alone.
"""
