"""Clinical letters: what a clinician writes about a patient, amends, and its readers read.

A letter has a title, a body in Markdown and one author. It is kept as an openEHR composition in the patient's own
electronic health record, so the letters outlive this program: any openEHR server can hold them and any openEHR reader
can show them. An amended letter is the next version of the same composition; earlier versions stay readable.

``composition`` turns a letter into a composition and back; ``templates`` holds the operational template that says what
such a composition looks like, which an openEHR store must know before it takes one.

Depends on the openEHR port, the kit and the error tree, and on no other slice.
"""
