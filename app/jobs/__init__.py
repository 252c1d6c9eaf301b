"""Durable jobs: one table, a lease on each row, and a worker that may be killed at any moment.

``table`` is the row, ``database`` opens SQLite or PostgreSQL and migrates it, ``store`` is every statement,
``files`` keeps the media, ``service`` is what routes and workers use, ``worker`` does the work.

What makes it safe to kill: the file is on disk before the row is there; a row is claimed by one UPDATE that
writes a fresh random lease; whoever renews, finishes or hands back must name that lease; the media go only
after the row is finished. What a crash leaves over (a file without a row) is the janitor's.
"""
