"""Measuring Quill: the same scenarios against Quill and against a bare floor, side by side, compared with budgets."""
