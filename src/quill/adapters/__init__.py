"""What stands behind the ports: embedded stores in the application database, and clients of remote servers."""
