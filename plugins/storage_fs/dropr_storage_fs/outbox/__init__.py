"""The outbox: a log for each lane, and a journal of what is not simply queued.

Primitives: `rows` (the shapes of what is known), `state` and `operations` (what is known, and what changes it),
`recovery` (snapshots, and what the logs tell), `lane_reader`; then what the contract asks for, a file each: `append`,
`take`, `matching`, `ending`, `resend`, `sweep`, `view`; `outbox` is their sum. Must not know the inbox.
"""
