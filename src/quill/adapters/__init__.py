"""What stands behind the ports. Only the assembly imports from here."""
