"""Seeded damage to files of every format, and a process of little room to open them in."""
