"""What must hold when several processes serve one database: nothing is decided from what one of them remembers."""
