"""Web Push: sealing, signing, and sending to no address that was not checked."""
