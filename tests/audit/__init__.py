"""The audit trail: rows made durable, seals over them, and what verification finds."""
