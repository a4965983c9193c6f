"""What every store has in common to be checked: is each kept message readable, is its large body there.

`contents` walks both halves page by page and says what is wrong, why, and what a repair does.
Knows no files of a storage: those are checked by `Storage.check` of the storage itself.
"""
