"""Services elsewhere, for tests: real HTTP on this machine's loopback, and a line to them that can go wrong."""
