"""openEHR stores: ``embedded`` keeps EHRs, templates and compositions in the application database."""
