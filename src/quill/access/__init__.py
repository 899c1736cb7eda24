"""Who may do what: level, role and competency, and relationship to the patient, asked in one place each.

A guard in a route's signature names all that a call needs; whoever is outside the patient's circle gets 404, whoever is
inside without the right gets 403, and both are audited. Depends on auth for who is signed in and on identity for ties.
"""
