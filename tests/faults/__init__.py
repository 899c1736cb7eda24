"""Every part away, slow or wrong: what callers see, what goes on, and how it heals (``docs/faults.md``)."""
