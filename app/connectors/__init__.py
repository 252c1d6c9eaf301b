"""Connectors: videos come from elsewhere (a folder, a bucket, a stream), verdicts go there.

A connector is a process of its own, `specsem connect NAME`, and a client of the service like any other. Each
is a ``Source`` (``app.connectors.interface``); ``app.connectors.bridge`` is what they have in common.
"""
