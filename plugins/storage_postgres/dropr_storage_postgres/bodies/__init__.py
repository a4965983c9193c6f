"""Large bodies of a store that machines share: rows of the database, which every machine can read.

The implementation of `dropr_core.contracts.bodies` for this storage: `rows` (how a body is cut into rows, and where
they stand), `sessions` (connections of their own, so that nothing small waits), `holder` (what keeps a writer's body
from the sweep), `writing`, `arriving`, `reading`, `checking` (for `dropr fsck`), `store` (all together, the sweep).
"""
