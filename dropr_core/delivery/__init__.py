"""Carrying what waits to the peers.

`links` (one for each peer, made from the configuration), `pusher` (carries out the orders of a link), `puller`
(fetches from a peer that cannot reach us), `peer_client` (one signed conversation), `body_upload` and `body_download`
(large bodies beside the lanes), `transports` (which transport serves an address).
Decides nothing about order or duplicates: that is protocol/.
"""
