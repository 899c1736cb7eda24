"""The FHIR stores behind ``quill.ports.fhir``.

``embedded`` keeps resources in the application database and takes part in its transaction. ``remote`` keeps them on a
FHIR R4 server elsewhere, HAPI FHIR first of all; the modules whose names begin like it are its parts.
"""
