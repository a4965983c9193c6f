"""``dropr demo``: three nodes on this machine, real processes, real files, and trouble on purpose.

``scenario`` is the story, ``nodes`` the processes, ``road`` the proxy between two nodes, ``chaos``
the trouble, ``mail`` what is sent, ``readers`` who receives it, ``tally`` the book-keeping that
decides the exit code, ``screen`` and ``report`` what people see.
"""
