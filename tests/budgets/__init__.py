"""The guard against slow code: what everyday operations cost is counted, never timed."""
