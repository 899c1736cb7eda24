"""The FHIR stores behind ``quill.ports.fhir``.

``embedded`` keeps resources in the application database and takes part in its transaction.
"""
