"""Django's priorities (-100 to 100, the highest first) as dropr's (0 to 9, the lowest first) and its ranks.

Owns the mapping. No two of Django's become one: those of one priority are told apart by the rank, which orders a queue.
On the way between nodes each of dropr's ten is a lane of its own.
"""

from dropr_core.api.send_options import PutOptions
from dropr_core.model.names import DEFAULT_PRIORITY, first_rank


def place_of(priority: int) -> PutOptions:
    """Where a task of Django's priority stands. 0 is dropr's default, 5; 85 to 100 are 0; 1 to 84 are 1 to 4, 21 in
    each; -1 to -100 are 6 to 9, 25 in each.
    """
    if priority == 0:
        return {"priority": DEFAULT_PRIORITY}
    if priority >= 85:
        return {"rank": first_rank(0) + 100 - priority}
    if priority > 0:
        level, offset = divmod(84 - priority, 21)
        return {"rank": first_rank(1 + level) + offset}
    level, offset = divmod(-1 - priority, 25)
    return {"rank": first_rank(6 + level) + offset}
