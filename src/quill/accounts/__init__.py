"""One's own account over HTTP: registering, signing in and out, staying signed in, passwords, the second factor.

Depends on auth for the machinery of sign-in, on identity for people, on organisations for the features clients show
and for requests to join, on the outbox for mail.
"""
