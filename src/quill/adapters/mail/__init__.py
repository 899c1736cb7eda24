"""Mail: through an SMTP server, or as a line in the log that says it was not sent."""
