"""People, and what ties them to places and patients: levels, roles, competencies held, memberships, grants.

No routes: organisations, staff administration and sign-in work on these tables through this package's service. Every
membership or right is a row read anew on each request, so taking one away shows at once.
Depends on the unit and the audit trail.
"""
