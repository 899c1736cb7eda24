"""One's own account over HTTP: signing in and out, staying signed in, who am I.

Depends on auth for the machinery of sign-in, on identity for people, on organisations for the features clients show.
"""
