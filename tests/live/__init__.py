"""The real servers that stand behind Quill, started for tests, and the tests that need them."""
