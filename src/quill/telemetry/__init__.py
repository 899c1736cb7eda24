"""What operators watch: metrics for Prometheus and traces for OpenTelemetry; both off until a setting asks.

Depends on ``kit.observing``, which is told what happens, and on the services of the slices that keep queues.
"""
