"""Files of a half of a store, without knowing what they mean.

Primitives: `disk` (calls of the operating system), `layout` (bytes of records and frames), `segment` and `segments`
(one file of a log, and all of them), `shared` (what all processes agree on, in mapped memory), `log` (appending and
where a log ends), `log_reader` and `column_reader` (reading it, sound or damaged; fast), `log_recovery` (its end after
a crash). Must not know journals, locks, lanes, queues or what a record says.
"""
