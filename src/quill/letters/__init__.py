"""Clinical letters: what a clinician writes about a patient, amends, and its readers read.

A letter has a title, a body in Markdown and one author. It is kept as an openEHR composition in the patient's own
electronic health record, so the letters outlive this program: any openEHR server can hold them and any openEHR reader
can show them. An amended letter is the next version of the same composition; earlier versions stay readable.

``composition`` turns a letter into a composition and back; ``templates`` holds the operational template that says what
such a composition looks like, which an openEHR store must know before it takes one. ``kind`` tells the intents how a
letter is written once, whatever gets lost on the way.

The store is where letters live: they are listed and read from there, and no copy is kept in SQL. Depends on patients
for whether a record takes entries, on access for who may, and on intents for the writing.
"""
