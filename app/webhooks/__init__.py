"""Webhooks: what happened is told to the addresses that tenants named, signed as Standard Webhooks has it.

``events`` is what there is to tell, ``outbox`` writes it down in the transaction in which it happens,
``signing`` makes secrets and signatures, ``store`` is every statement, ``service`` is what routes use,
``console`` the same for the command line, and ``dispatcher`` sends.

An event is delivered at least once: its row is there if and only if what it tells was committed, and it stays
pending until a receiver has answered 2xx. A dispatcher claims it under a lease that runs out with its
process. Each attempt carries the event's own id, so that a receiver can tell a repetition. No order is
promised.
"""
