"""The queues of others, measured in the same run.

One file each; started where installed, skipped with a word where not.
"""
