"""The processes of a node, each a thin composition of what the other rooms give.

`daemon` (delivery), `server` (answering), `worker` (handlers around consumers), `mainloop` (signals, heart-beat,
posted calls: what the three have in common).
Holds no rule of its own: who looks for one looks in the rooms below.
"""
