"""External people: whom a patient, or an admin, lets see one record, and how that ends.

An invite is a row: bound to an e-mail address and to who sent it, good once and for seven days. Accepting it makes an
account or finds the one there is, and gives it a grant; revoking ends the grant, pending invites and the person's part
in conversations together. Grants themselves live with identity, because access reads them at every request.
Depends on conversations, patients, identity, auth and the outbox.
"""
