"""What the service tells of itself, to those who run it.

``metrics`` is Prometheus's, ``tracing`` OpenTelemetry's (imported only where it is switched on), ``logs``
gives each line the id of its request or job. ``telemetry`` is what the rest of the service holds of the first
two, and ``requests`` the outermost layer around every request.
"""
