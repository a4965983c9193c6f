"""Messages at times of the clock: which schedules there are, what is due, what became of each run.

`definitions` knows the schedules of a node, `due` decides what happens now, `state` keeps what has happened, `firing`
puts or sends a run, `scheduler` does all of it whenever its process turns to it. Must not know peers' addresses,
handlers, nor which process it is in.
"""
