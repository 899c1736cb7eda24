"""Sign-in: passwords, second factor, tokens in cookies, logins that can be ended, throttling.

A login is a row; tokens only point at it, so ending it ends them at the next request. Depends on identity for people
and on the audit trail; what a signed-in person may do is ``access``.
"""
