"""Asks the replicas of serving pools, and Prometheus, how busy they are; what follows from it is not for here."""
