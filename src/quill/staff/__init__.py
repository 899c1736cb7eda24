"""Staff: administering people. Making, changing and disabling accounts, their rights, logins and links to patients.

Only a superadmin administers admins, nobody changes their own level, and the last superadmin stays. Has no tables:
people are identity's, logins are auth's. Depends on both, on access for who may see the people around a patient, on
organisations for their names, and on patients for whether there is one to link.
"""
