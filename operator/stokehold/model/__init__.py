"""The vocabulary that the planners share: frozen values, no I/O."""
