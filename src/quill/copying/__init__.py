"""Moving the clinical records of an installation from one kind of store to the other, whole and checked.

A copy goes over all records twice. The first time people go on working. Then new clinical writes are held up, those
under way are finished, and what was added meanwhile is copied; both sides are compared; and only then is it written
down that the records live in the new place. What a target holds already is where a copy goes on from, so one that was
cut off at any moment is simply started again.

It knows the adapters, as the assembly does, and nothing imports it but the command line.
"""
