"""openEHR stores: ``embedded`` keeps records in the application database, ``remote`` asks an EHRbase elsewhere."""
