"""Clinical writes that survive a crash: one mechanism for patients, letters, messages and prescriptions.

What is about to be written is recorded first (the intent), then written to the record store under an id we minted, then
projected into SQL; only then is the caller answered. Whatever a crash leaves behind, a sweep finishes or refuses.
Depends on the unit and the audit trail; the slices register what writing and projecting mean for their records.
"""
