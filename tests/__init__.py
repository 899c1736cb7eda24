"""The suite: folders as under ``src/quill``, and ``contracts``, ``guarantees`` and ``live``."""
