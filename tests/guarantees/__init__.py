"""What must be true of the whole program and its repository."""
